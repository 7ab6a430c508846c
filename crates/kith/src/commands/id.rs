//! `kith id`.

use std::path::Path;

use kith_identity::{Identity, Ni, fingerprint_of_spki, words};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::{Map, Value, json};

use super::Context;
use crate::cli::Id;
use crate::config::Config;
use crate::failure::{Failure, Result, chain};
use crate::identity_file;

/// A key file larger than this is not one.
const MAX_PEM_BYTES: u64 = 64 * 1024;

pub(super) fn id(context: &Context, options: &Id) -> Result<()> {
    let (ni, spki) = match &options.of {
        None => own(context)?,
        Some(text) if text.starts_with("ni:") => {
            (text.parse::<Ni>().map_err(|error| Failure::usage(chain(&error)))?, None)
        }
        Some(file) => {
            let spki = spki_of_file(Path::new(file))?;
            let fingerprint = fingerprint_of_spki(&spki)
                .map_err(|error| Failure::failed(format!("{file}: {}", chain(&error))))?;
            (Ni::new(fingerprint, None), Some(spki))
        }
    };
    let spoken = words(&ni.fingerprint).join(" ");
    let value = document(&ni, spki.as_deref(), &spoken);
    if options.qr && !context.out.is_json() {
        let code = QrCode::new(ni.to_string()).map_err(Failure::failed)?;
        let picture =
            code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
        context.out.result(&value, || picture)?;
    } else {
        context.out.result(&value, || if options.words { spoken } else { ni.to_string() })?;
    }
    Ok(())
}

fn own(context: &Context) -> Result<(Ni, Option<Vec<u8>>)> {
    let config = Config::load(&context.home)?;
    let identity = identity_file::load(&context.home, &config)?;
    let ni = Ni::new(identity.fingerprint(), config.authorities.first().cloned());
    Ok((ni, Some(identity.public().spki().to_vec())))
}

/// What is known of a fingerprint; a mapping that does not exist for it is left out.
fn document(ni: &Ni, spki: Option<&[u8]>, spoken: &str) -> Value {
    let mut map = Map::new();
    map.insert("ni".into(), json!(ni.to_string()));
    if let Ok(fqdn) = ni.fqdn() {
        map.insert("fqdn".into(), json!(fqdn));
    }
    if let Ok(url) = ni.url() {
        map.insert("url".into(), json!(url));
    }
    map.insert("words".into(), json!(spoken));
    if let Some(spki) = spki {
        map.insert("spki".into(), json!(data_encoding::BASE64.encode(spki)));
    }
    Value::Object(map)
}

/// The SubjectPublicKeyInfo in a PEM file: of a public key, a certificate, or a private key without passphrase.
fn spki_of_file(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let failed = |what: &str| Failure::failed(format!("{}: {what}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::not_found(format!("there is no file {}", path.display()))
            .hint("a fingerprint begins with 'ni:'"),
        _ => failed(&error.to_string()),
    })?;
    let mut text = String::new();
    file.take(MAX_PEM_BYTES).read_to_string(&mut text).map_err(|error| failed(&error.to_string()))?;
    if text.contains("PRIVATE KEY-----") {
        if Identity::is_encrypted(&text) {
            return Err(failed(
                "the private key is protected by a passphrase; its fingerprint needs the public key",
            ));
        }
        let identity = Identity::from_pem(&text, None).map_err(|error| failed(&chain(&error)))?;
        return Ok(identity.public().spki().to_vec());
    }
    let (label, der) = pem_block(&text).ok_or_else(|| failed("this is no PEM file"))?;
    match label.as_str() {
        "PUBLIC KEY" => Ok(der),
        "CERTIFICATE" => {
            let key =
                kith_identity::tls::peer_key(Some(&[der.into()])).map_err(|error| failed(&chain(&error)))?;
            key.map(|key| key.spki().to_vec()).ok_or_else(|| failed("the certificate holds no key"))
        }
        other => Err(failed(&format!("a PEM block '{other}' holds no public key"))),
    }
}

/// Label and bytes of the first PEM block (RFC 7468).
fn pem_block(text: &str) -> Option<(String, Vec<u8>)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    let compact: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    Some((label.to_owned(), data_encoding::BASE64.decode(compact.as_bytes()).ok()?))
}

/// Spoken words and fingerprints go together in tests of the program; here only the mapping's shape is held.
#[cfg(test)]
mod tests {
    use super::*;
    use kith_identity::Fingerprint;

    #[test]
    fn the_vector_of_the_all_zero_key() {
        let ni: Ni = "ni://example.org/sha3-256;k1KYFVJBkgY2aYInWVqSQiOD-B5Zeg7Yj2UaBpgDaBY".parse().unwrap();
        let value = document(&ni, None, "six words");
        assert_eq!(
            value["fqdn"],
            "935298155241920636698227595a9242.2383f81e597a0ed88f651a0698036816.0a.example.org"
        );
        assert_eq!(
            value["url"],
            "https://example.org/.well-known/ni/sha3-256/k1KYFVJBkgY2aYInWVqSQiOD-B5Zeg7Yj2UaBpgDaBY"
        );
        let bare = Ni::new(Fingerprint::from_bytes(*ni.fingerprint.as_bytes()), None);
        assert!(document(&bare, None, "").get("url").is_none());
    }

    #[test]
    fn pem_blocks_are_found() {
        let text = "noise\n-----BEGIN PUBLIC KEY-----\nAAEC\n-----END PUBLIC KEY-----\n";
        assert_eq!(pem_block(text), Some(("PUBLIC KEY".to_owned(), vec![0, 1, 2])));
        assert_eq!(pem_block("nothing"), None);
    }
}
