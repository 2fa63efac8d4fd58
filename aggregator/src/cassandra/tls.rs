//! Encrypted connections: rustls, with the authorities of the operator's choice and, if the nodes ask, a certificate of our own.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::options::TlsFiles;

/// What the driver encrypts with, or what is wrong with a file.
pub(super) fn config(files: &TlsFiles) -> Result<Arc<ClientConfig>, String> {
    let mut authorities = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        authorities.add(certificate).map_err(|error| format!("{}: {error}", files.ca.display()))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(authorities);
    let config = match (&files.certificate, &files.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let secret =
                PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{}: {error}; it must hold a PEM private key", key.display()))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, secret)
                .map_err(|error| format!("{}: {error}", certificate.display()))?
        }
        _ => return Err("a client certificate and its key go together: name both files or none".into()),
    };
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| format!("{}: {error}; it must hold PEM certificates", path.display()))?;
    if found.is_empty() { Err(format!("{} holds no PEM certificate", path.display())) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_file_that_is_not_there_or_holds_nothing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "nothing").unwrap();
        for ca in [empty, dir.path().join("absent.pem")] {
            let error = config(&TlsFiles { ca: ca.clone(), certificate: None, key: None }).unwrap_err();
            assert!(error.contains(ca.to_str().unwrap()), "{error}");
        }
    }
}
