//! Sends a path between two processes over loopback, to measure and to profile.
//!
//! `pipe receive PORT DIR MODE` in one terminal, `pipe send PORT PATH MODE` in the other; MODE is `tcp` or `tls`, or
//! `tls-bare` for a plain copy loop of one file without hashing, as a yardstick. `pipe measure PATH DIR MODE` does
//! both, each in a process of its own, and prints the rate and each side's peak memory and processor time.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use kith_sansio::{Rng, system};
use kith_transfer::{
    Limits, Offer, Progress, SendOptions, Target, TransferId, find_partial, read_offer, receive, send,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["receive", port, dir, mode] => run(receiving(port.parse().unwrap(), dir.into(), mode)),
        ["send", port, path, mode] => run(sending(port.parse().unwrap(), path.into(), mode)),
        ["measure", path, dir, mode] => measure(path, dir, mode),
        _ => eprintln!("usage: pipe receive PORT DIR MODE | send PORT PATH MODE | measure PATH DIR MODE"),
    }
}

fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future);
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

async fn receiving(port: u16, dir: PathBuf, mode: &str) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let (tcp, _) = listener.accept().await.unwrap();
    tcp.set_nodelay(true).unwrap();
    if mode == "tcp" {
        return take(tcp, dir).await;
    }
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = CertificateDer::from(key.cert.der().to_vec());
    let secret = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], secret);
    let tls = TlsAcceptor::from(Arc::new(config.unwrap())).accept(tcp).await.unwrap();
    if mode == "tls-bare" {
        bare_take(tls, &dir).await;
    } else {
        take(tls, dir).await;
    }
}

async fn take(mut stream: impl Duplex, dir: PathBuf) {
    let incoming = read_offer(&mut stream, &Limits::default()).await.unwrap();
    let staging = find_partial(&dir, &incoming.offer().digest());
    let target = Target { dir, staging, ..Target::default() };
    let summary = receive(stream, incoming, target, Arc::new(Progress::new()), kith_transfer::Cancel::new())
        .await
        .unwrap();
    assert_eq!(summary.failures, 0, "{summary:?}");
    eprintln!("receiver: {} of {} bytes were there", summary.resumed_bytes, summary.bytes);
    usage("receiver");
}

async fn bare_take(mut stream: impl Duplex, dir: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(dir.join("bare")).unwrap();
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        file.write_all(&buffer[..count]).unwrap();
    }
    usage("receiver");
}

async fn sending(port: u16, path: PathBuf, mode: &str) {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    if mode == "tcp" {
        return give(tcp, path).await;
    }
    let config = rustls::ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    if mode == "tls-bare" {
        bare_give(tls, &path).await;
    } else {
        give(tls, path).await;
    }
}

async fn give(stream: impl Duplex, path: PathBuf) {
    let start = system::time();
    let offer = Offer::from_paths(&[path]).unwrap();
    let mut id = [0; 16];
    system::OsRng.fill(&mut id);
    let options = SendOptions::new(TransferId(id));
    let summary =
        send(stream, &offer, options, Arc::new(Progress::new()), kith_transfer::Cancel::new()).await.unwrap();
    rate(summary.bytes, start);
}

async fn bare_give(mut stream: impl Duplex, path: &Path) {
    use std::io::Read;
    let start = system::time();
    let mut file = std::fs::File::open(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    while let Ok(count @ 1..) = file.read(&mut buffer) {
        stream.write_all(&buffer[..count]).await.unwrap();
        bytes += count as u64;
    }
    stream.shutdown().await.unwrap();
    let _closed = stream.read(&mut buffer).await;
    rate(bytes, start);
}

fn rate(bytes: u64, start: kith_sansio::Time) {
    let seconds = (system::time() - start).0 as f64 / 1e6;
    println!("{bytes} bytes in {seconds:.3} s: {:.0} MB/s", bytes as f64 / seconds / 1e6);
    usage("sender");
}

/// Peak memory and processor time of this process.
fn usage(side: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("?").trim();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let times: Vec<u64> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|t| t.parse().unwrap())
        .collect();
    eprintln!("{side}: peak {peak}, processor {} ms user, {} ms system", times[0] * 10, times[1] * 10);
}

fn measure(path: &str, dir: &str, mode: &str) {
    use std::io::{BufRead, BufReader};
    let program = std::env::current_exe().unwrap();
    let mut receiver =
        Command::new(&program).args(["receive", "0", dir, mode]).stdout(Stdio::piped()).spawn().unwrap();
    let mut port = String::new();
    BufReader::new(receiver.stdout.take().unwrap()).read_line(&mut port).unwrap();
    assert!(Command::new(&program).args(["send", port.trim(), path, mode]).status().unwrap().success());
    assert!(receiver.wait().unwrap().success());
}

/// A verifier that is only right on loopback in a benchmark.
#[derive(Debug)]
struct Anybody;

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256, rustls::SignatureScheme::ED25519]
    }
}
