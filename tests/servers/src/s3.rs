//! A server that speaks S3: S3Proxy, its buckets directories.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::jars;
use crate::java;
use crate::place::{Place, Scratch};
use crate::process::Process;

/// How long it may take until it serves.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who may use it; requests are signed.
const IDENTITY: &str = "test-identity";
const CREDENTIAL: &str = "test-credential";

/// A server with one bucket; it ends when this is dropped or the process ends.
#[derive(Debug)]
pub struct S3Server {
    address: String,
    _server: Process,
    scratch: Scratch,
}

impl S3Server {
    /// The name of its bucket.
    pub const BUCKET: &str = "views";

    /// Starts one.
    ///
    /// # Panics
    /// When it does not start, with the reason.
    #[must_use]
    pub fn start() -> Self {
        match Self::started() {
            Ok(server) => server,
            Err(reason) => panic!("S3 for tests: {reason}"),
        }
    }

    fn started() -> Result<Self, String> {
        java::java()?;
        let jars = jars::fetched(&jars::S3)?;
        let place = Place::find(1, 1)?;
        let scratch = Scratch::new("s3")?;
        let address = format!("{}:{}", place.host(1), place.port(0));
        let data = scratch.path().join("data");
        let failed = |error: std::io::Error| format!("{}: {error}", scratch.path().display());
        fs::create_dir_all(data.join(Self::BUCKET)).map_err(failed)?;
        let settings = scratch.path().join("s3proxy.conf");
        let text = format!(
            "s3proxy.endpoint=http://{address}\ns3proxy.authorization=aws-v2-or-v4\ns3proxy.identity={IDENTITY}\n\
             s3proxy.credential={CREDENTIAL}\njclouds.provider=filesystem\njclouds.filesystem.basedir={}\n",
            data.display()
        );
        fs::write(&settings, text).map_err(failed)?;
        let last = ["--properties".to_owned(), settings.display().to_string()];
        let mut server = java::server(&jars, &["-Xmx128m".to_owned()], "org.gaul.s3proxy.Main", &last, &scratch.path().join("log"))?;
        let at: SocketAddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
        let begun = Instant::now();
        while TcpStream::connect(at).is_err() {
            if server.ended().is_some() || begun.elapsed() > PATIENCE {
                return Err(format!("it does not serve at {address}; {}", server.tail()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { address, _server: server, scratch })
    }

    /// Its address, as <http://host:port>.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The environment of a process that may use it.
    #[must_use]
    pub const fn environment() -> [(&'static str, &'static str); 2] {
        [("AWS_ACCESS_KEY_ID", IDENTITY), ("AWS_SECRET_ACCESS_KEY", CREDENTIAL)]
    }

    /// Where the objects of its bucket lie, as files.
    #[must_use]
    pub fn objects(&self) -> std::path::PathBuf {
        self.scratch.path().join("data").join(Self::BUCKET)
    }
}
