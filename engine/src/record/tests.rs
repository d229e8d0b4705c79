#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, clippy::indexing_slicing)]
use super::*;

fn row_of(id: u32) -> Vec<u8> {
    CatalogueRow::new(id, KeyspaceOptions::default()).encode().to_vec()
}

fn sample() -> Vec<u8> {
    let mut builder = Builder::default();
    builder.drop_keyspace(3, "old");
    builder.create_keyspace(9, "näme", &row_of(9));
    builder.put(9, b"k", b"v");
    builder.put(9, b"", b"");
    builder.remove(4, b"gone");
    builder.remove_range(4, (Bound::Excluded(b"a"), Bound::Unbounded));
    builder.add(9, b"n", -2);
    builder.finish().payload().to_vec()
}

#[test]
fn what_is_encoded_is_decoded() {
    let payload = sample();
    let ops = decode(&payload).unwrap();
    assert_eq!(ops.len(), 7);
    assert_eq!(ops[0], Op::DropKeyspace { keyspace: 3, name: "old" });
    assert_eq!(ops[1], Op::CreateKeyspace { keyspace: 9, name: "näme", row: &row_of(9) });
    assert_eq!(ops[3], Op::Put { keyspace: 9, key: b"", value: b"" });
    assert_eq!(ops[5], Op::RemoveRange { keyspace: 4, from: Bound::Excluded(b"a"), to: Bound::Unbounded });
    assert_eq!(ops[6], Op::Add { keyspace: 9, key: b"n", delta: -2 });
    let set = WriteSet::decode(payload).unwrap();
    assert_eq!((set.created(), set.dropped()), (&[9][..], &[3][..]));
    assert!(set.contains(CATALOGUE, "näme".as_bytes()) && set.contains(4, b"gone"));
    assert!(set.contains(4, b"b") && !set.contains(4, b"a") && !set.overwrites(9, b"n") && set.has_adds());
    assert!(!set.contains(3, b"old"));
}

#[test]
fn of_several_writes_to_one_key_the_last_counts() {
    let mut builder = Builder::default();
    for (key, value) in [(b"b", b"1"), (b"a", b"2"), (b"b", b"3")] {
        builder.put(1, key, value);
    }
    let set = builder.finish();
    assert_eq!(set.rows().len(), 2);
    let last = set.rows()[1];
    assert_eq!(set.key_of(&last), (1, &b"b"[..]));
    assert_eq!(&set.payload()[last.value_range().unwrap()], b"3");
}

#[test]
fn every_cut_is_an_error_and_no_flip_panics() {
    let payload = sample();
    for len in 0..payload.len() {
        assert!(decode(&payload[..len]).is_err(), "cut to {len}");
    }
    for at in 0..payload.len() {
        for bit in 0..8 {
            let mut flipped = payload.clone();
            flipped[at] ^= 1 << bit;
            if let Ok(ops) = decode(&flipped) {
                assert_eq!(ops.len(), 7);
            }
        }
    }
    let mut huge = payload;
    huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(decode(&huge).is_err());
}

/// The bytes of the document, once spelled out.
#[test]
fn ranges_and_adds_have_the_bytes_of_the_document() {
    let mut builder = Builder::default();
    builder.remove_range(7, (Bound::Included(b"ab"), Bound::Excluded(b"c")));
    builder.remove_range(7, (Bound::Unbounded, Bound::Included(b"")));
    builder.add(7, b"n", -2);
    let expected = [
        &[1, 0, 0, 0, 3, 0, 0, 0][..],
        &[5, 7, 0, 0, 0, 2, 0, b'a', b'b', 1 | 2 << 2, 1, 0, b'c'],
        &[5, 7, 0, 0, 0, 0, 0, 1 << 2, 0, 0],
        &[6, 7, 0, 0, 0, 1, 0, b'n', 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ]
    .concat();
    assert_eq!(**builder.finish().payload(), expected);
    for (at, value) in [(17, 3), (17, 1 | 3 << 2), (17, 1 << 4), (17, 2 << 2), (20, b'a'), (31, 1)] {
        let mut wrong = expected.clone();
        wrong[at] = value;
        assert!(decode(&wrong).is_err(), "{value} at {at}");
    }
}

/// Random operations on few keys, in one payload: what the set says is what they come to, one after the other.
#[test]
fn a_set_is_what_its_operations_come_to_in_call_order() {
    let mut state = 5_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..2000 {
        let mut builder = Builder::default();
        let mut model = [None::<Option<i64>>; 6];
        let mut added = [0_i64; 6];
        for _ in 0..1 + random(8) {
            let key = random(6) as usize;
            match random(4) {
                0 => {
                    let number = random(100) as i64;
                    builder.put(1, &[key as u8], &number.to_le_bytes());
                    model[key] = Some(Some(number));
                }
                1 => {
                    builder.remove(1, &[key as u8]);
                    model[key] = Some(None);
                }
                2 => {
                    let delta = random(100) as i64;
                    builder.add(1, &[key as u8], delta);
                    match &mut model[key] {
                        Some(row) => *row = Some(row.unwrap_or(0) + delta),
                        None => added[key] += delta,
                    }
                }
                _ => {
                    let end = key + 1 + random(3) as usize;
                    builder.remove_range(1, (Bound::Included(&[key as u8]), Bound::Excluded(&[end as u8])));
                    (key..end.min(6)).for_each(|key| model[key] = Some(None));
                }
            }
        }
        let set = WriteSet::decode(builder.finish().payload().to_vec()).unwrap();
        for (key, expected) in model.iter().enumerate() {
            let name = [key as u8];
            let row = set.rows().iter().find(|row| set.key_of(row) == (1, &name[..]));
            let is_cleared = set.removed().iter().any(|(_, span)| span.contains(&name));
            let found = match row.and_then(OpPlace::effect) {
                Some(Effect::Put(value)) => {
                    Some(Some(i64::from_le_bytes(set.payload()[value].try_into().unwrap())))
                }
                Some(Effect::Set(number)) => Some(Some(number)),
                Some(Effect::Remove) => Some(None),
                Some(Effect::Add(delta)) => {
                    assert!(!is_cleared && expected.is_none() && delta == added[key]);
                    None
                }
                Some(Effect::PutLarge(_)) => panic!("none was put"),
                None => is_cleared.then_some(None),
            };
            assert_eq!(found, *expected, "{key}");
            assert_eq!(set.contains(1, &name), row.is_some() || is_cleared);
        }
    }
}

/// A write set meets a span that one of its rows or ranges lies in, of the same keyspace.
#[test]
fn a_set_meets_what_it_changes() {
    let mut state = 9_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % below) as u8
    };
    for _ in 0..300 {
        let (mut builder, mut changed) = (Builder::default(), std::collections::BTreeSet::new());
        for _ in 0..random(6) {
            let (keyspace, from) = (1 + u32::from(random(3)), random(30));
            let to = from + random(4);
            builder.remove_range(keyspace, (Bound::Included(&[from]), Bound::Included(&[to])));
            changed.extend((from..=to).map(|key| (keyspace, key)));
        }
        let row = (1 + u32::from(random(3)), random(30));
        builder.put(row.0, &[row.1], b"v");
        changed.insert(row);
        let set = builder.finish();
        for from in 0..34 {
            for to in from..34 {
                let span = Span::new(Bound::Included(&[from]), Bound::Included(&[to])).unwrap();
                for keyspace in 0..5 {
                    let expected = (from..=to).any(|key| changed.contains(&(keyspace, key)));
                    assert_eq!(set.meets(keyspace, &span), expected);
                }
            }
        }
    }
}

/// The fuzz targets begin with every operation as it should be.
#[test]
fn the_corpus_has_records_that_decode() {
    macro_rules! entry {
        ($name:literal) => {
            decode(include_bytes!(concat!("../../../fuzz/corpus/engine_record/", $name)))
        };
    }
    let is_large = |op: &Op<'_>| matches!(op, Op::PutLarge { .. });
    assert!(entry!("large").unwrap().iter().all(is_large));
    assert_eq!(entry!("large-in-pieces").unwrap().len(), 2);
    for record in [
        entry!("prepared"),
        entry!("prepared-with-reads"),
        entry!("prepared-committed"),
        entry!("prepared-rolled-back"),
        entry!("prepared-by-an-operator"),
    ] {
        assert!(record.is_ok(), "{record:?}");
    }
    for record in [
        entry!("large-unflagged"),
        entry!("large-without-pieces"),
        entry!("prepared-cut-short"),
        entry!("prepared-unknown-outcome"),
    ] {
        assert!(record.is_err(), "{record:?}");
    }
}
