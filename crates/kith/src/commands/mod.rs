//! The commands: each asks the running node over its control socket, or works on the home folder itself.

mod actors;
mod blob;
mod contact;
mod delegator;
mod dht;
mod directory;
mod discover;
mod doctor;
mod id;
mod init;
mod invite;
mod join;
mod network;
mod node;
mod own_node;
mod pages;
mod ping;
mod relay;
mod service;
mod simulate;
mod succeed;
mod transfer;
mod transfers;
mod tun;

use std::io::Read;
use std::path::{Path, PathBuf};

use kith_sansio::{Span, system};
use kith_store::{Home, HomeError, HomeLock};

use crate::api::client::Control;
use crate::api::socket;
use crate::cli::{Actors, Cli, Command, IdCommand};
use crate::failure::{Failure, Result, chain};
use crate::output::Output;

/// What every command needs.
pub(crate) struct Context {
    pub(crate) home: Home,
    pub(crate) out: Output,
}

impl Context {
    /// The path of the home's control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        socket::path(&self.home, &socket::runtime_folder())
    }

    /// The running node, waited for while it starts.
    pub(crate) async fn node(&self) -> Result<Control> {
        self.refuse_without_identity()?;
        Control::wait(&self.socket(), self.home.dir()).await
    }

    /// The running node, or the home itself where none runs.
    pub(crate) async fn node_or_home(&self, command: &str) -> Result<Access> {
        self.refuse_without_identity()?;
        if let Some(control) = Control::connect(&self.socket()).await {
            return Ok(Access::Node(control));
        }
        match self.home.lock(command) {
            Ok(lock) => Ok(Access::Home(lock)),
            // Whoever holds the lock is a node that starts, or a command that ends in a moment.
            Err(HomeError::Locked { .. }) => self.node_or_lock(command).await,
            Err(error) => Err(Failure::failed(chain(&error))),
        }
    }

    async fn node_or_lock(&self, command: &str) -> Result<Access> {
        let deadline = system::time() + Span::secs(10);
        loop {
            if let Some(control) = Control::connect(&self.socket()).await {
                return Ok(Access::Node(control));
            }
            match self.home.lock(command) {
                Ok(lock) => return Ok(Access::Home(lock)),
                Err(error) if system::time() >= deadline => return Err(Failure::failed(chain(&error))),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    }

    pub(crate) fn refuse_without_identity(&self) -> Result<()> {
        if self.home.exists() {
            return Ok(());
        }
        Err(Failure::failed(format!("there is no identity in {}", self.home.dir().display()))
            .hint(format!("make one with 'kith --home {} init'", self.home.dir().display())))
    }
}

/// How a command that works with or without a node reaches its data.
pub(crate) enum Access {
    /// A node runs: ask it.
    Node(Control),
    /// No node runs, and none can start while this lock is held.
    Home(HomeLock),
}

/// Runs the command line.
pub(crate) async fn run(cli: Cli) -> Result<()> {
    let home = match (home_folder(cli.home), &cli.command) {
        // These touch no home.
        (
            Err(_),
            Command::Completions(_)
            | Command::Man(_)
            | Command::Simulate(_)
            | Command::Actors(Actors::Verify(_)),
        ) => PathBuf::from("/"),
        (home, _) => home?,
    };
    let context = Context { home: Home::at(home), out: Output::new(cli.json, cli.quiet) };
    match cli.command {
        Command::Init(options) => init::init(&context, &options),
        Command::Id(options) => match &options.command {
            None => id::id(&context, &options),
            Some(IdCommand::Succeed(options)) => succeed::succeed(&context, options),
        },
        Command::Up(options) => node::up(&context, &options).await,
        Command::Down => node::down(&context).await,
        Command::Status(options) => node::status(&context, &options).await,
        Command::Contact(command) => contact::contact(&context, command).await,
        Command::Invite(options) => invite::invite(&context, options).await,
        Command::Join(options) => join::join(&context, options).await,
        Command::Discover(options) => discover::discover(&context, &options).await,
        Command::Announce => node::announce(&context).await,
        Command::Ping(options) => ping::ping(&context, &options).await,
        Command::Send(options) => transfer::send(&context, options).await,
        Command::Receive(options) => transfer::receive(&context, options).await,
        Command::Transfer(command) => transfers::transfer(&context, command).await,
        Command::Tun(command) => tun::tun(&context, command).await,
        Command::Blob(command) => blob::blob(&context, command).await,
        Command::Relay(command) => relay::relay(&context, command).await,
        Command::Directory(command) => directory::directory(&context, command).await,
        Command::Delegator(command) => Box::pin(delegator::delegator(&context, command)).await,
        Command::Network(command) => network::network(&context, command).await,
        Command::Dht(command) => dht::dht(&context, command).await,
        Command::Actors(command) => actors::actors(&context, command).await,
        Command::Simulate(command) => simulate::simulate(&context, &command).await,
        Command::Doctor => doctor::doctor(&context).await,
        Command::InstallService(options) => service::install(&context, &options),
        Command::Completions(options) => pages::completions(&context, &options),
        Command::Man(options) => pages::man(&context, &options),
    }
}

/// `--home`, else `$KITH_HOME`, else the XDG data folder.
fn home_folder(option: Option<PathBuf>) -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = option
        .or_else(|| variable("KITH_HOME"))
        .or_else(|| variable("XDG_DATA_HOME").map(|data| data.join("kith")))
        .or_else(|| variable("HOME").map(|home| home.join(".local/share/kith")));
    let Some(folder) = folder else {
        return Err(Failure::usage("neither --home nor KITH_HOME nor HOME says where the home folder is"));
    };
    absolute(&folder)
}

/// The path from the root, without following links.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}

/// A path as the control API carries it: text.
pub(crate) fn path_text(path: &Path) -> Result<String> {
    let absolute = absolute(path)?;
    absolute.into_os_string().into_string().map_err(|name| {
        Failure::usage(format!("the path {} is not UTF-8", name.to_string_lossy()))
            .hint("send the folder that holds it; names inside a folder may be any bytes")
    })
}

/// The bytes of a file, or of standard input for `-`; nothing where they are more than `most`.
fn read_at_most(most: u64, file: &Path) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let read = match file == Path::new("-") {
        true => std::io::stdin().lock().take(most + 1).read_to_end(&mut bytes),
        false => std::fs::File::open(file).and_then(|open| open.take(most + 1).read_to_end(&mut bytes)),
    };
    read.map_err(|error| Failure::failed(format!("cannot read {}: {error}", file.display())))?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

/// Text as a part of a URL: everything but unreserved characters percent-encoded (RFC 3986 §2.3).
pub(crate) fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}
