//! The servers' jars, from Maven Central, kept in the user's cache.
//!
//! `<cache>/tallymark/servers/<name>-<version>/*.jar`, fetched once: into a directory beside it that is renamed when it is whole, under a
//! file lock, so that test processes that start together fetch once and none sees half of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A server as Maven knows it. The directory's name holds the version, so another version is another directory.
pub(crate) struct Artifact {
    name: &'static str,
    version: &'static str,
    /// Group, artifact, version.
    artifacts: &'static [(&'static str, &'static str, &'static str)],
}

/// Kafka's own jars log nowhere: the last one prints.
pub(crate) const KAFKA: Artifact = Artifact {
    name: "kafka",
    version: "4.1.0",
    artifacts: &[
        ("org.apache.kafka", "kafka_2.13", "4.1.0"),
        ("org.apache.kafka", "kafka-tools", "4.1.0"),
        ("org.slf4j", "slf4j-simple", "1.7.36"),
    ],
};

pub(crate) const CASSANDRA: Artifact =
    Artifact { name: "cassandra", version: "5.0.5", artifacts: &[("org.apache.cassandra", "cassandra-all", "5.0.5")] };

pub(crate) const S3: Artifact = Artifact { name: "s3proxy", version: "2.7.0", artifacts: &[("org.gaul", "s3proxy", "2.7.0")] };

/// Pinned like the servers, so that a fetch of today is a fetch of next year.
const PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

/// The directory with the jars, fetched if they are not there.
///
/// # Errors
/// What is missing and how to get it.
pub(crate) fn fetched(artifact: &Artifact) -> Result<PathBuf, String> {
    let cache = cache()?;
    let directory = cache.join(format!("{}-{}", artifact.name, artifact.version));
    if directory.is_dir() {
        return Ok(directory);
    }
    let at = |what: &str, error: std::io::Error| format!("the cache of test servers, {}: {what}: {error}", cache.display());
    fs::create_dir_all(&cache).map_err(|error| at("creating it", error))?;
    let lock = File::create(cache.join(format!("{}.lock", artifact.name))).map_err(|error| at("its lock", error))?;
    lock.lock().map_err(|error| at("its lock", error))?;
    if directory.is_dir() {
        return Ok(directory);
    }
    // A directory that dies with this process's mistakes; what a killed one left is only waste.
    let scratch = tempfile::tempdir_in(&cache).map_err(|error| at("a directory in it", error))?;
    let jars = scratch.path().join("jars");
    download(artifact, scratch.path(), &jars)?;
    fs::rename(&jars, &directory).map_err(|error| at("moving the jars", error))?;
    Ok(directory)
}

fn cache() -> Result<PathBuf, String> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    let base = base.ok_or("neither XDG_CACHE_HOME nor HOME is set: there is no place to keep the test servers")?;
    Ok(base.join("tallymark").join("servers"))
}

fn download(artifact: &Artifact, scratch: &Path, jars: &Path) -> Result<(), String> {
    let what = format!("{} {}", artifact.name, artifact.version);
    fs::write(scratch.join("pom.xml"), pom(artifact)).map_err(|error| format!("{}: {error}", scratch.display()))?;
    let mut maven = Command::new("mvn");
    maven.current_dir(scratch).args(["-q", "-B", PLUGIN]).arg(format!("-DoutputDirectory={}", jars.display()));
    let output = maven.output().map_err(|error| {
        format!("Maven is missing (mvn: {error}); it fetches {what} for the tests. Install it with: sudo apt-get install -y maven")
    })?;
    if !output.status.success() || !jars.is_dir() {
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "{what} could not be fetched from Maven Central ({}); is the network there? Maven said:\n{said}",
            output.status
        ));
    }
    Ok(())
}

fn pom(artifact: &Artifact) -> String {
    let dependencies: String = artifact
        .artifacts
        .iter()
        .map(|(group, name, version)| {
            format!("<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>")
        })
        .collect();
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>tallymark</groupId><artifactId>test-{}</artifactId><version>1</version><packaging>pom</packaging>\
         <dependencies>{dependencies}</dependencies></project>\n",
        artifact.name
    )
}
