//! `--compression`: how a keyspace that a command makes is compressed.

use super::{Failure, Outcome};
use clap::{Args, ValueEnum};
use seawall::{Compression, Db, Keyspace, KeyspaceOptions};

/// A method, as the command line and `status` name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// Not compressed
    None,
    /// Fast
    Lz4,
    /// Small; in builds with the feature `zstd`
    Zstd,
}

impl Method {
    /// None for what is not compressed, or not known here.
    pub(crate) fn of(compression: Compression) -> Option<Method> {
        match compression {
            Compression::Lz4 => Some(Method::Lz4),
            Compression::Zstd => Some(Method::Zstd),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Method::None => "none",
            Method::Lz4 => "lz4",
            Method::Zstd => "zstd",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct CompressionArg {
    /// How to compress the keyspace, if this makes it; one that is there stays as it is, and must be so
    #[arg(long, value_enum, value_name = "METHOD")]
    compression: Option<Method>,
}

impl CompressionArg {
    /// The keyspace, made if it is not there.
    pub(crate) fn keyspace(&self, db: &Db, name: &str) -> Outcome<Keyspace> {
        let compression = match self.compression {
            None => return Ok(db.keyspace(name)?),
            Some(Method::None) => Compression::None,
            Some(Method::Lz4) => Compression::Lz4,
            Some(Method::Zstd) => Compression::Zstd,
        };
        let made = db.keyspace_with(name, KeyspaceOptions { compression, ..KeyspaceOptions::default() });
        made.map_err(Failure::from)
    }
}
