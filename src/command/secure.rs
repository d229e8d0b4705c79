//! How connections to and from others are protected: the same words for every command.

use super::{Failure, Outcome};
use clap::Args;
use seawall::replication::net::{self, Remote, RemoteOptions};
use seawall::txn;
use std::path::{Path, PathBuf};

/// Certificates, or none.
#[derive(Debug, Args)]
pub(crate) struct Secure {
    /// This node's certificate, PEM
    #[arg(long, value_name = "FILE", requires = "key", requires = "authority")]
    certificate: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// The authority that the others' certificates come from, PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    authority: Option<PathBuf>,
    /// Without certificates: whoever reaches the address is believed; on loopback only
    #[arg(long, conflicts_with_all = ["certificate", "key", "authority"])]
    plain_text: bool,
    /// With --plain-text: on any address
    #[arg(long, requires = "plain_text")]
    anywhere: bool,
}

/// A certificate, its key, and the authority.
struct Files([Vec<u8>; 3]);

impl Secure {
    fn files(&self) -> Outcome<Option<Files>> {
        let read = |path: &Path| std::fs::read(path).map_err(|error| Failure::file("reading", path, &error));
        match (&self.certificate, &self.key, &self.authority) {
            (Some(certificate), Some(key), Some(authority)) => {
                Ok(Some(Files([read(certificate)?, read(key)?, read(authority)?])))
            }
            _ if self.plain_text => Ok(None),
            _ => Err(Failure::usage("--certificate, --key and --authority are needed, or --plain-text")),
        }
    }

    /// For transactions over several stores.
    pub(crate) fn of_txn(&self) -> Outcome<txn::net::Security> {
        Ok(match self.files()? {
            Some(Files([certificate, key, authority])) => {
                txn::net::Security::MutualTls(txn::net::Credentials { certificate, key, authority })
            }
            None => txn::net::Security::PlainText { anywhere: self.anywhere },
        })
    }

    /// For replication.
    pub(crate) fn of_replication(&self) -> Outcome<net::Security> {
        Ok(match self.files()? {
            Some(Files([certificate, key, authority])) => {
                net::Security::MutualTls(net::Credentials { certificate, key, authority })
            }
            None => net::Security::PlainText { anywhere: self.anywhere },
        })
    }

    /// Somebody who ships a log.
    pub(crate) fn remote(&self, addresses: &[String], name: Option<&str>) -> Outcome<Remote> {
        let options = RemoteOptions {
            addresses: addresses.to_vec(),
            name: name.unwrap_or_default().to_owned(),
            security: self.of_replication()?,
        };
        Remote::new(&options).map_err(|error| Failure::usage(format!("{}: {error}", addresses.join(", "))))
    }
}

/// `HOST:PORT`, for a command line.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let is_whole = text
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
    if is_whole { Ok(text.to_owned()) } else { Err(format!("`{text}` is not HOST:PORT")) }
}

/// A replica's name, for a command line.
pub(crate) fn name(text: &str) -> Result<seawall::replication::message::Name, String> {
    seawall::replication::message::Name::new(text)
        .ok_or_else(|| format!("`{text}` is not 1 to 64 of a to z, 0 to 9, _ and -"))
}
