//! Certificates: who this is, whom it believes, and what a connection's certificate says.

use super::{Error, Peer, Result, Security};
use std::time::Duration;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// How often a quiet connection is tried, and how long it may stay silent.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

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

impl Credentials {
    /// Before anything is built on them: an empty or mixed-up file is said here.
    pub(super) fn check(&self) -> Result<()> {
        let parts = [
            (&self.certificate, "CERTIFICATE"),
            (&self.key, "PRIVATE KEY"),
            (&self.authority, "CERTIFICATE"),
        ];
        for (bytes, kind) in parts {
            let found = String::from_utf8_lossy(bytes);
            let is_there = found
                .lines()
                .any(|line| line.starts_with("-----BEGIN ") && line.ends_with(&format!("{kind}-----")));
            if !is_there {
                return Err(Error::BadInput(format!(
                    "no PEM of a {} where one is needed",
                    kind.to_lowercase()
                )));
            }
        }
        Ok(())
    }

    fn identity(&self) -> Identity {
        Identity::from_pem(&self.certificate, &self.key)
    }
}

/// Of the several that rustls may be built with, this one; one that the program has installed stays.
pub(super) fn install_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

pub(super) fn server_tls(credentials: &Credentials) -> ServerTlsConfig {
    ServerTlsConfig::new()
        .identity(credentials.identity())
        .client_ca_root(Certificate::from_pem(&credentials.authority))
}

pub(super) fn endpoint(security: &Security, peer: &Peer) -> Result<Endpoint> {
    let bad = |error: tonic::transport::Error| {
        Error::BadInput(format!("`{}` as the address of {}: {error}", peer.address, peer.node))
    };
    let scheme = if matches!(security, Security::MutualTls(_)) { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{}", peer.address)).map_err(bad)?;
    let endpoint = endpoint
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    match security {
        Security::MutualTls(credentials) => {
            let tls = ClientTlsConfig::new()
                .identity(credentials.identity())
                .ca_certificate(Certificate::from_pem(&credentials.authority))
                .domain_name(&peer.name);
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
