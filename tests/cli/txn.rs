//! `seawall txn`.

use super::{fail, fresh, succeed};
use seawall::{Db, Vote, Xid};

#[test]
fn txn_ends_by_hand_what_is_in_doubt() {
    let dir = fresh("txn");
    let xid = Xid::new(7, "order 41", "stock").unwrap();
    {
        let db = Db::open(dir.join("db")).unwrap();
        let rows = db.keyspace("default").unwrap();
        let mut tx = db.begin();
        tx.insert(&rows, "a", "1").unwrap();
        assert!(matches!(tx.prepare(xid.clone()).unwrap(), Vote::Prepared(_)));
        db.close().unwrap();
    }
    let name = xid.to_string();
    let listed = succeed(&dir, &["txn", "list", "db"]);
    assert!(listed.contains(&name) && listed.contains("in doubt"), "{listed}");
    fail(&dir, &["txn", "forget", "db", &name], 2);
    fail(&dir, &["txn", "commit", "db", "7.00.00"], 3);
    succeed(&dir, &["txn", "commit", "db", &name]);
    assert!(succeed(&dir, &["get", "db", "a"]).contains('1'));
    assert!(succeed(&dir, &["txn", "list", "db"]).contains("committed by hand"));
    fail(&dir, &["txn", "rollback", "db", &name], 1);
    succeed(&dir, &["txn", "forget", "db", &name]);
    assert!(!succeed(&dir, &["txn", "list", "db"]).contains(&name));
}
