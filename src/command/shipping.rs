//! What `serve` and `replica` ship a store's log with: slots, images, the listening side.

use super::compression::Method;
use super::measure::units;
use super::secure::Secure;
use super::{Failure, Outcome};
use clap::Args;
use seawall::replication::message::Compression;
use seawall::replication::net::{Roles, Server, ServerOptions};
use seawall::replication::node::{Host, Keeper};
use seawall::replication::ship::primary::Settings;
use seawall::wal::OsRuntime;
use seawall::{Db, SlotOptions};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Who may follow, and what may be kept for them.
#[derive(Debug, Args)]
pub(crate) struct Ships {
    /// A DNS name in the certificate of a replica, whose first label is the replica's name; may be given more than once
    #[arg(long = "replica", value_name = "NAME")]
    replicas: Vec<String>,
    /// A name in the certificate of somebody who may ask for the status; may be given more than once
    #[arg(long = "operator", value_name = "NAME")]
    operators: Vec<String>,
    #[command(flatten)]
    limits: SlotLimits,
    /// Bytes a second of an image that is given away, at most
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    image_rate: Option<u64>,
    /// How log is compressed on its way to replicas that can unpack it; by LZ4 where one cannot unpack Zstandard
    #[arg(long, value_enum, value_name = "METHOD", default_value = "none")]
    compress: Method,
}

/// What a slot that is made for a replica may keep.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct SlotLimits {
    /// Log that may be kept for a replica that is away, before it needs a new image
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    slot_bytes_max: Option<u64>,
    /// For how long log may be kept for a replica that is away, before it needs a new image
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    slot_age_max: Option<Duration>,
}

impl SlotLimits {
    pub(crate) fn options(&self) -> SlotOptions {
        SlotOptions { bytes_max: self.slot_bytes_max, age_max: self.slot_age_max }
    }
}

impl Ships {
    /// What keeps the log for replicas.
    pub(crate) fn keeper(&self, db: &Db) -> Arc<Keeper> {
        Arc::new(Keeper::new(db, self.limits.options(), OsRuntime::new()))
    }

    /// How sessions with replicas behave.
    pub(crate) fn settings(&self) -> Outcome<Settings> {
        let compression = match self.compress {
            Method::None => Compression::None,
            Method::Lz4 => Compression::Lz4,
            Method::Zstd if cfg!(feature = "zstd") => Compression::Zstd,
            Method::Zstd => {
                let failure = Failure::usage("--compress zstd takes a build with the feature `zstd`");
                return Err(failure.hint("--compress lz4 is in every build"));
            }
        };
        Ok(Settings { compression, ..Settings::default() })
    }

    /// Listens for replicas.
    pub(crate) fn listen(&self, listen: SocketAddr, secure: &Secure, host: Arc<dyn Host>) -> Outcome<Server> {
        let roles = Roles { replicas: self.replicas.clone(), operators: self.operators.clone() };
        let mut options = ServerOptions::new(listen, secure.of_replication()?, roles);
        options.image_bytes_per_s = self.image_rate;
        Server::bind(options, host).map_err(|error| Failure::error(format!("listening at {listen}: {error}")))
    }
}
