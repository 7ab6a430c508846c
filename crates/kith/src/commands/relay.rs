//! `kith relay serve`, `kith relay list`.

use serde_json::{Value, json};

use super::{Context, node};
use crate::api::shapes::Status;
use crate::cli::{Relay, RelayServe};
use crate::config::{Config, Served};
use crate::failure::Result;
use crate::output::printable;

pub(super) async fn relay(context: &Context, command: Relay) -> Result<()> {
    match command {
        Relay::Serve(options) => serve(context, options).await,
        Relay::List => list(context).await,
    }
}

async fn serve(context: &Context, options: RelayServe) -> Result<()> {
    context.refuse_without_identity()?;
    let mut config = Config::load(&context.home)?;
    let configured = config.relay.serves.take();
    config.relay.serves = options.serves.or(configured).or(Some(Served::Contacts));
    node::run(context, config, &options.listen).await
}

async fn list(context: &Context) -> Result<()> {
    let status: Status = context.node().await?.read("/v1/status").await?;
    let none = json!({ "serves": null, "uses": [] });
    let relays = status.floors.get("relay").unwrap_or(&none);
    context.out.result(relays, || text(relays))
}

fn text(relays: &Value) -> String {
    let number = |name: &str| relays["serves"][name].as_u64().unwrap_or(0);
    let mut lines = Vec::new();
    for used in relays["uses"].as_array().into_iter().flatten() {
        let state = if used["reachable"] == true { "reachable" } else { "away" };
        let rtt = used["rtt_ms"].as_f64().map_or(String::new(), |ms| format!(", {ms:.2} ms"));
        lines.push(format!("{}: {state}{rtt}", printable(used["ni"].as_str().unwrap_or_default())));
    }
    if relays["serves"].is_object() {
        let [exposed, waiting, sessions] = ["exposed", "waiting", "sessions"].map(number);
        lines.push(format!("relays for {exposed} nodes, {waiting} requests wait, {sessions} sessions now"));
    }
    if lines.is_empty() {
        lines.push("this node uses no relay and is none".to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_each_relay_and_counts_what_this_one_does() {
        let load = json!({ "exposed": 2, "waiting": 3, "sessions": 4 });
        let used = json!([{ "ni": "ni://x", "reachable": true, "rtt_ms": 1.5 }, { "ni": "ni://y" }]);
        assert_eq!(
            text(&json!({ "serves": load, "uses": used })),
            "ni://x: reachable, 1.50 ms\nni://y: away\nrelays for 2 nodes, 3 requests wait, 4 sessions now"
        );
        assert_eq!(text(&json!({ "serves": null, "uses": [] })), "this node uses no relay and is none");
    }
}
