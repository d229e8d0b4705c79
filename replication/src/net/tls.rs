//! Certificates: who this is, whom it believes, and what a connection's certificate says.

use super::{Security, invalid};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// How often a quiet connection is tried, and how long it may stay silent.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The flow control of HTTP/2 by stream and connection: the protocol's own credit is what limits.
pub(super) const WINDOW_BYTES: u32 = 32 << 20;

/// Bytes of one frame of HTTP/2 that a replica takes: a piece is not cut into more of them than need be.
const FRAME_BYTES: u32 = 256 << 10;

/// A node's certificate and key, and the authority that others' certificates must come from. All in PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The certificate, with those between it and the authority's.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
    /// The authority's certificates.
    pub authority: Vec<u8>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Nothing of the key.
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// Before anything is built on it: a file that is empty or mixed up, and plain text where others can reach, are said here.
pub(super) fn check(security: &Security, listen: Option<SocketAddr>) -> io::Result<()> {
    match security {
        Security::MutualTls(credentials) => {
            let parts = [
                (&credentials.certificate, "CERTIFICATE"),
                (&credentials.key, "PRIVATE KEY"),
                (&credentials.authority, "CERTIFICATE"),
            ];
            for (bytes, kind) in parts {
                let end = format!("{kind}-----");
                let text = String::from_utf8_lossy(bytes);
                if !text.lines().any(|line| line.starts_with("-----BEGIN ") && line.ends_with(&end)) {
                    return Err(invalid(format!("no PEM of a {} where one is needed", kind.to_lowercase())));
                }
            }
            Ok(())
        }
        Security::PlainText { anywhere: false } if listen.is_some_and(|at| !at.ip().is_loopback()) => Err(
            invalid("without certificates anybody is believed: plain text is for loopback, unless asked for"),
        ),
        Security::PlainText { .. } => Ok(()),
    }
}

/// Of the several that rustls may be built with, this one; one that the program has installed stays.
pub(super) fn install_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn identity(credentials: &Credentials) -> Identity {
    Identity::from_pem(&credentials.certificate, &credentials.key)
}

pub(super) fn server_tls(credentials: &Credentials) -> ServerTlsConfig {
    ServerTlsConfig::new()
        .identity(identity(credentials))
        .client_ca_root(Certificate::from_pem(&credentials.authority))
}

pub(super) fn endpoint(security: &Security, address: &str, name: &str) -> io::Result<Endpoint> {
    let bad = |error: tonic::transport::Error| invalid(format!("`{address}`: {error}"));
    let scheme = if matches!(security, Security::MutualTls(_)) { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).map_err(bad)?;
    let endpoint = endpoint
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .tcp_nodelay(true);
    match security {
        Security::MutualTls(credentials) => {
            let tls = ClientTlsConfig::new()
                .identity(identity(credentials))
                .ca_certificate(Certificate::from_pem(&credentials.authority))
                .domain_name(name);
            endpoint.tls_config(tls).map_err(bad)
        }
        Security::PlainText { .. } => Ok(endpoint),
    }
}

/// The DNS names in a certificate that the handshake has verified.
pub(super) fn names(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Vec::new() };
    let Ok(Some(alternative)) = certificate.subject_alternative_name() else { return Vec::new() };
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    alternative.value.general_names.iter().filter_map(dns).collect()
}
