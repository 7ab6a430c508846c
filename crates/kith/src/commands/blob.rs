//! `kith blob`: authentic bytes through the directory alone (the blobber of SEP §7).

use std::path::Path;

use hyper::Method;
use serde_json::Value;

use super::{Access, Context, discover::look_up, read_at_most};
use crate::api::shapes::{Announced, NewBlob};
use crate::cli::Blob;
use crate::failure::{Failure, Result};
use crate::node::directory::{Lookup, put_blob_from_home};

/// Nothing larger fits into a record set (16 KiB of signed bytes).
const MAX_BYTES: u64 = 16 * 1024;

pub(super) async fn blob(context: &Context, command: Blob) -> Result<()> {
    match command {
        Blob::Put { file } => put(context, &file).await,
        Blob::Get { ni } => get(context, ni).await,
    }
}

async fn put(context: &Context, file: &Path) -> Result<()> {
    let bytes = read(file)?;
    let announced: Vec<Announced> = match context.node_or_home("blob put").await? {
        Access::Node(mut node) => {
            let body = NewBlob { blob: Some(data_encoding::BASE64.encode(&bytes)) };
            node.call(Method::PUT, "/v1/blob", Some(&body)).await?
        }
        Access::Home(_lock) => put_blob_from_home(&context.home, bytes).await?,
    };
    let failed = announced.iter().find_map(|one| one.error.as_ref().map(|error| (&one.authority, error)));
    if let Some((authority, error)) = failed {
        return Err(Failure::unreachable(format!("publishing at {authority} failed: {error}")));
    }
    context.out.result(&announced, || {
        let names: Vec<_> = announced.iter().map(|one| one.authority.as_str()).collect();
        format!("published at {}", names.join(", "))
    })?;
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let Some(bytes) = read_at_most(MAX_BYTES, file)? else {
        return Err(Failure::failed(format!(
            "{} is larger than a record set can hold (16 KiB)",
            file.display()
        ))
        .hint("send it with 'kith send'"));
    };
    Ok(bytes)
}

async fn get(context: &Context, ni: String) -> Result<()> {
    let set = look_up(context, Lookup { ni: ni.clone(), via: None }).await?;
    let Some(blob) = set["blob"].as_array().and_then(|blobs| blobs.first()).and_then(Value::as_str) else {
        return Err(Failure::not_found(format!("{ni} publishes no blob")));
    };
    if context.out.is_json() {
        context.out.result(&serde_json::json!({ "blob": blob, "expires": set["expires"] }), String::new)?;
        return Ok(());
    }
    let bytes = data_encoding::BASE64.decode(blob.as_bytes()).map_err(Failure::failed)?;
    context.out.bytes(&bytes)
}
