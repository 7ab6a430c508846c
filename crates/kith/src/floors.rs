//! The floors of a node, from the bottom up: started in this order, stopped in reverse.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::api::server::Route;
use crate::failure::Result;
use crate::node::{self, Node};

/// What a floor adds to the node. A new floor adds itself to [`FLOORS`] and touches nothing else here.
pub(crate) struct Floor {
    /// Name of its section in `status`.
    pub(crate) name: &'static str,
    /// Brings it to life; what it starts ends with `node.stopped`.
    pub(crate) start: fn(&Arc<Node>) -> BoxFuture<'_, Result<()>>,
    /// Ends it in good order, while the floors below still work.
    pub(crate) stop: fn(&Arc<Node>) -> BoxFuture<'_, ()>,
    /// Its calls in the control API.
    pub(crate) routes: fn() -> Vec<Route>,
    /// Its section in `status`; `None` where it is off.
    pub(crate) status: fn(&Node) -> Option<Value>,
    /// Its commands, as the command line names them.
    #[cfg_attr(not(test), expect(dead_code, reason = "held against the command line by a test"))]
    pub(crate) commands: &'static [&'static str],
}

/// All floors of this program.
pub(crate) const FLOORS: &[Floor] = &[
    node::contacts::FLOOR,
    node::directory::FLOOR,
    node::connect::FLOOR,
    node::lan::FLOOR,
    node::relay::FLOOR,
    node::mapping::FLOOR,
    node::delegator::FLOOR,
    node::network::FLOOR,
    node::dht::FLOOR,
    node::actors::FLOOR,
    node::successions::FLOOR,
    node::invitations::FLOOR,
    node::transfers::FLOOR,
    node::tunnels::FLOOR,
];

#[cfg(test)]
mod tests {
    use super::FLOORS;
    use clap::CommandFactory;

    #[test]
    fn every_command_belongs_to_one_floor_or_to_the_node_or_stands_beside_it() {
        let of_the_node =
            ["init", "id", "up", "down", "status", "doctor", "install-service", "completions", "man"];
        // The simulator needs no node.
        let beside = ["simulate"];
        let mut named: Vec<_> = FLOORS.iter().flat_map(|floor| floor.commands).copied().collect();
        named.extend(of_the_node.into_iter().chain(beside));
        named.sort_unstable();
        let cli = crate::cli::Cli::command();
        let mut offered: Vec<_> = cli.get_subcommands().map(clap::Command::get_name).collect();
        offered.sort_unstable();
        assert_eq!(named, offered);
    }
}
