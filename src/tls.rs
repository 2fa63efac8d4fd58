//! TLS for who connects: rustls, with a certificate that is read again when its files change.
//!
//! The files are looked at every two seconds and compared by their content, so that it does not matter how they are replaced (renamed,
//! written over, a link that Kubernetes turns round). Connections that are open keep what they began with. Files that do not go together
//! (half replaced, say) or cannot be read leave the old certificate in place, and that is said, once for each such state.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

const EVERY: Duration = Duration::from_secs(2);

/// Where certificate and key are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// Our certificate and those between it and the authority.
    pub(crate) certificate: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
}

/// Why there is no TLS.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{setting}` {path}: {detail}")]
pub(crate) struct TlsError {
    setting: &'static str,
    path: String,
    detail: String,
}

/// What connections are encrypted with.
pub(crate) struct Tls {
    current: watch::Receiver<Arc<ServerConfig>>,
    watching: JoinHandle<()>,
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Tls {
    /// Reads the files, and goes on looking at them.
    ///
    /// # Errors
    /// If they cannot be used.
    pub(crate) fn start(files: TlsFiles) -> Result<Self, TlsError> {
        let pem = Pem::read(&files)?;
        let (sender, current) = watch::channel(pem.config(&files)?);
        Ok(Self { current, watching: tokio::spawn(follow(files, pem, sender)) })
    }

    /// For the next connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.borrow()))
    }
}

async fn follow(files: TlsFiles, seen: Pem, sender: watch::Sender<Arc<ServerConfig>>) {
    let mut follower = Follower { files: files.clone(), seen, said: None };
    loop {
        sleep(EVERY).await;
        let asked = files.clone();
        let Ok(read) = tokio::task::spawn_blocking(move || Pem::read(&asked)).await else { continue };
        if let Some(config) = follower.look(read) {
            sender.send_replace(config);
        }
    }
}

/// Decides what becomes of what is read.
struct Follower {
    files: TlsFiles,
    seen: Pem,
    said: Option<TlsError>,
}

impl Follower {
    /// What new connections are to be encrypted with, if that changes.
    fn look(&mut self, read: Result<Pem, TlsError>) -> Option<Arc<ServerConfig>> {
        let config = match read {
            Ok(pem) if pem == self.seen => return None,
            Ok(pem) => {
                let config = pem.config(&self.files);
                self.seen = pem;
                config
            }
            Err(error) => Err(error),
        };
        match config {
            Ok(config) => {
                self.said = None;
                tracing::info!(certificate = %self.files.certificate.display(), "the certificate was replaced; new connections use it");
                Some(config)
            }
            Err(error) => {
                if self.said.as_ref() != Some(&error) {
                    tracing::warn!(%error, "the new certificate cannot be used; the one before stays");
                    self.said = Some(error);
                }
                None
            }
        }
    }
}

/// The bytes of both files.
#[derive(PartialEq, Eq)]
struct Pem {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Pem {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |setting, path: &Path| std::fs::read(path).map_err(|error| fault(setting, path, error.to_string()));
        Ok(Self { certificate: read("tls_cert", &files.certificate)?, key: read("tls_key", &files.key)? })
    }

    fn config(&self, files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
        let bad_certificate = |detail: String| fault("tls_cert", &files.certificate, detail);
        let chain = CertificateDer::pem_slice_iter(&self.certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| bad_certificate(format!("{error}; it must hold PEM certificates, ours first")))?;
        if chain.is_empty() {
            return Err(bad_certificate("it holds no PEM certificate".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| fault("tls_key", &files.key, format!("{error}; it must hold a PEM private key without a password")))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| bad_certificate(error.to_string()))?
            .with_no_client_auth()
            // Refuses a key that is not the certificate's.
            .with_single_cert(chain, key)
            .map_err(|error| bad_certificate(format!("{error}; is `tls_key` the key of this certificate?")))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn fault(setting: &'static str, path: &Path, detail: String) -> TlsError {
    TlsError { setting, path: path.display().to_string(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &Path) -> TlsFiles {
        TlsFiles { certificate: dir.join("cert.pem"), key: dir.join("key.pem") }
    }

    fn write(files: &TlsFiles, certificate: &str, key: &str) {
        std::fs::write(&files.certificate, certificate).unwrap();
        std::fs::write(&files.key, key).unwrap();
    }

    fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn files_that_cannot_be_used_are_named_with_their_setting() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        let (certificate, key) = made();
        let refused = |certificate: &str, key: &str| {
            write(&files, certificate, key);
            Pem::read(&files).and_then(|pem| pem.config(&files)).map(drop).unwrap_err().to_string()
        };
        assert!(refused("", &key).contains("`tls_cert`"));
        assert!(refused("nothing", &key).contains("no PEM certificate"));
        assert!(refused(&certificate, "nothing").contains("`tls_key`"));
        assert!(refused(&certificate, &made().1).contains("is `tls_key` the key of this certificate?"));
        write(&files, &certificate, &key);
        assert!(Pem::read(&files).unwrap().config(&files).is_ok());
        std::fs::remove_file(&files.key).unwrap();
        assert!(Pem::read(&files).map(drop).unwrap_err().to_string().contains("key.pem"));
    }

    #[test]
    fn a_new_certificate_is_taken_and_a_broken_one_leaves_the_old() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        let ((first, first_key), (second, second_key)) = (made(), made());
        write(&files, &first, &first_key);
        let mut follower = Follower { seen: Pem::read(&files).unwrap(), files: files.clone(), said: None };
        let mut look = |certificate: &str, key: &str| {
            write(&files, certificate, key);
            let taken = follower.look(Pem::read(&files)).is_some();
            (taken, follower.said.is_some())
        };
        assert_eq!(look(&first, &first_key), (false, false), "nothing has changed");
        assert_eq!(look(&second, &first_key), (false, true), "half replaced, as a reader may find it");
        assert_eq!(look(&second, &second_key), (true, false));
        assert_eq!(look("", ""), (false, true));
        assert_eq!(look(&second, &second_key), (true, false), "what it was before");
    }
}
