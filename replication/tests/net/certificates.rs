//! An authority, and certificates by it.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use seawall_replication::net::Credentials;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Of one name, another's certificate would be one with a wrong signature.
        static LAST: AtomicU64 = AtomicU64::new(0);
        let name = format!("authority {}", LAST.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(crate) fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    /// For a name, until some time to come.
    pub(crate) fn issue(&self, name: &str) -> Credentials {
        self.issue_until(name, 4000)
    }

    /// For a name, until this year.
    pub(crate) fn issue_until(&self, name: &str, year: i32) -> Credentials {
        self.issue_to(&[name.to_owned()], year)
    }

    /// For DNS names and addresses, until this year.
    pub(crate) fn issue_to(&self, names: &[String], year: i32) -> Credentials {
        let mut params = CertificateParams::new(names.to_vec()).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Credentials {
            certificate: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
            authority: self.pem(),
        }
    }
}
