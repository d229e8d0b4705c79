//! Certificates: who this is, whom it believes, and what a connection's certificate says.

use super::{Security, direct, invalid};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// How often a quiet connection is tried, and how long it may stay silent.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long the other side may take for TCP, and for TLS.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(5);
/// The flow control of HTTP/2 by stream and connection: the protocol's own credit is what limits.
pub(super) const WINDOW_BYTES: u32 = 32 << 20;

/// HTTP/2, by ALPN.
const GRPC: &[u8] = b"h2";

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

fn bad(what: impl std::fmt::Display) -> io::Error {
    invalid(format!("credentials: {what}"))
}

fn chain(pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(bad)
}

fn authority(credentials: &Credentials) -> io::Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(chain(&credentials.authority)?);
    Ok(Arc::new(roots))
}

/// Takes connections of both kinds: by ALPN they say which they are.
pub(super) fn acceptor(credentials: &Credentials, direct: bool) -> io::Result<TlsAcceptor> {
    let verifier = WebPkiClientVerifier::builder(authority(credentials)?).build().map_err(bad)?;
    let key = PrivateKeyDer::from_pem_slice(&credentials.key).map_err(bad)?;
    let mut config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(&credentials.certificate)?, key)
        .map_err(bad)?;
    config.alpn_protocols =
        direct.then_some(direct::PROTOCOL).into_iter().chain([GRPC]).map(Vec::from).collect();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Makes connections for following: an older node answers that it knows no other kind than gRPC.
pub(super) fn connector(credentials: &Credentials) -> io::Result<TlsConnector> {
    let key = PrivateKeyDer::from_pem_slice(&credentials.key).map_err(bad)?;
    let mut config = ClientConfig::builder()
        .with_root_certificates(authority(credentials)?)
        .with_client_auth_cert(chain(&credentials.certificate)?, key)
        .map_err(bad)?;
    config.alpn_protocols = vec![direct::PROTOCOL.to_vec(), GRPC.to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The name that the other side's certificate must bear.
pub(super) fn server_name(name: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).map_err(|error| invalid(format!("`{name}`: {error}")))
}

pub(super) fn endpoint(security: &Security, address: &str, name: &str) -> io::Result<Endpoint> {
    let bad = |error: tonic::transport::Error| invalid(format!("`{address}`: {error}"));
    let scheme = if matches!(security, Security::MutualTls(_)) { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).map_err(bad)?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_MAX)
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
