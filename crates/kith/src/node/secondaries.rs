//! The secondaries of a zone and their keys, out of the configuration.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use data_encoding::BASE64;
use kith_directory::dns::tsig::{Algorithm, Key};
use kith_directory::server::{Secondary, ServerConfig};
use zeroize::Zeroizing;

use crate::config::{TsigKey, Zone};
use crate::failure::{Failure, Result, chain};

/// A secret file larger than this is not one.
const MAX_SECRET_BYTES: u64 = 4096;

/// Sets what the configuration says of name servers, secondaries and keys.
pub(crate) fn configure(config: &mut ServerConfig, zone: &Zone) -> Result<()> {
    config.name_servers.clone_from(&zone.name_servers);
    config.tsig_keys = zone.tsig_key.iter().map(|key| read(key).map(Arc::new)).collect::<Result<_>>()?;
    config.secondaries = zone
        .secondary
        .iter()
        .map(|secondary| Secondary { address: secondary.address, key: secondary.key.clone() })
        .collect();
    Ok(())
}

fn read(key: &TsigKey) -> Result<Key> {
    let wrong =
        |error: &dyn std::error::Error| Failure::failed(format!("directory.tsig-key: {}", chain(error)));
    let algorithm: Algorithm = key.algorithm.parse().map_err(|error| wrong(&error))?;
    let secret = secret(&key.secret_file)?;
    Key::new(&key.name, algorithm, &secret).map_err(|error| wrong(&error))
}

/// The secret in a file, in base64.
fn secret(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |error: std::io::Error| {
        Failure::failed(format!("cannot read the secret {}: {error}", path.display()))
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
        return Err(Failure::failed(format!("others can read the secret {}", path.display()))
            .hint(format!("chmod 600 {}", path.display())));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_SECRET_BYTES).read_to_string(&mut text).map_err(failed)?;
    // Long ones are broken into lines by the programs that make them.
    text.retain(|letter| !letter.is_ascii_whitespace());
    let decoded = BASE64.decode(text.as_bytes()).map(Zeroizing::new);
    decoded.map_err(|_| {
        Failure::failed(format!("the secret {} is not base64", path.display()))
            .hint("make one with 'head -c 32 /dev/urandom | base64'")
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_read_from_a_file_of_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let written = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            secret(&path)
        };
        assert_eq!(*written("AAECAwQFBgcICQoLDA0ODw==\n", 0o600).unwrap(), (0..16).collect::<Vec<u8>>());
        assert_eq!(*written("AAECAwQFBgcI\nCQoLDA0ODw==\n", 0o600).unwrap(), (0..16).collect::<Vec<u8>>());
        for mode in [0o640, 0o604, 0o660] {
            let failure = written("AAECAwQFBgcICQoLDA0ODw==", mode).unwrap_err();
            assert!(failure.error.contains("others can read") && failure.hint.is_some());
        }
        assert!(written("not base64!", 0o600).unwrap_err().error.contains("not base64"));
        assert!(secret(&folder.path().join("missing")).unwrap_err().error.contains("missing"));
    }

    #[test]
    fn a_wrong_key_says_what_is_wrong_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let secret_file = folder.path().join("secret");
        fs::write(&secret_file, "AAAA").unwrap();
        fs::set_permissions(&secret_file, fs::Permissions::from_mode(0o600)).unwrap();
        let key = |algorithm: &str| TsigKey {
            name: "transfer".to_owned(),
            algorithm: algorithm.to_owned(),
            secret_file: secret_file.clone(),
        };
        assert!(read(&key("hmac-md5")).err().unwrap().error.contains("hmac-md5"));
        assert!(read(&key("hmac-sha256")).err().unwrap().error.contains("3 bytes"));
    }
}
