//! `kith discover`.

use std::sync::Arc;

use serde_json::Value;

use super::{Access, Context};
use crate::cli::{Discover, ViaSource};
use crate::failure::Result;
use crate::node::contacts::Book;
use crate::node::directory::{Lookup, found, lookup};
use crate::node::{lan, open_client, open_database};
use crate::output::printable;

pub(super) async fn discover(context: &Context, options: &Discover) -> Result<()> {
    let via = options.via.map(|via| match via {
        ViaSource::Dns => "dns".to_owned(),
        ViaSource::Https => "https".to_owned(),
        ViaSource::Lan => "lan".to_owned(),
        ViaSource::Dht => "dht".to_owned(),
    });
    let value = look_up(context, Lookup { ni: options.ni.clone(), via }).await?;
    context.out.result(&value, || text(&value))?;
    Ok(())
}

/// Asks the running node, or the directories from here.
pub(super) async fn look_up(context: &Context, wish: Lookup) -> Result<Value> {
    match context.node_or_home("discover").await? {
        Access::Node(mut node) => {
            let via = wish.via.map_or(String::new(), |via| format!("&via={via}"));
            node.read(&format!("/v1/discover?ni={}{via}", super::escape(&wish.ni))).await
        }
        Access::Home(_lock) => {
            let database = open_database(&context.home)?;
            let book = Arc::new(Book::open(database.clone())?);
            let config = crate::config::Config::load(&context.home)?;
            let client = open_client(&config, database, lan::open(&config))?;
            found(&lookup(&client, &book, &wish).await?)
        }
    }
}

fn text(value: &Value) -> String {
    let list = |key: &str| {
        let items = value[key].as_array().cloned().unwrap_or_default();
        items
            .iter()
            .filter_map(Value::as_str)
            .map(|item| format!("{key}  {}\n", printable(item)))
            .collect::<String>()
    };
    let plain = |key: &str| printable(value[key].as_str().unwrap_or("none"));
    format!(
        "{}{}timestamp  {}\nexpires    {}\nverified   by {}",
        list("addresses"),
        list("relay"),
        plain("timestamp"),
        plain("expires"),
        plain("verified_by")
    )
}
