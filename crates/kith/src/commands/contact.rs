//! `kith contact`: over the running node, or in the home folder itself.

use hyper::Method;
use kith_store::HomeLock;
use serde_json::{Value, json};

use super::{Access, Context};
use crate::api::client::Control;
use crate::api::delegator::{Block, NewBlock};
use crate::api::shapes::{self, ContactChange, Decision, Knock, NewContact};
use crate::cli::{Contact, Group, Succession};
use crate::failure::Result;
use crate::node::claims::Stand;
use crate::node::contacts::{Book, apply, shape};
use crate::node::open_database;
use crate::output::{printable, way};

/// The book of contacts, wherever it is at the moment.
enum Reach {
    Node(Control),
    Home { book: Box<Book>, _lock: HomeLock },
}

pub(super) async fn contact(context: &Context, command: Contact) -> Result<()> {
    let mut reach = match context.node_or_home("contact").await? {
        Access::Node(control) => Reach::Node(control),
        Access::Home(lock) => {
            Reach::Home { book: Box::new(Book::open(open_database(&context.home)?)?), _lock: lock }
        }
    };
    match command {
        Contact::Add { name, ni, at } => {
            let added = reach.add(NewContact { name, ni, at }).await?;
            context
                .out
                .result(&added, || format!("{} is a contact now: {}", printable(&added.name), added.ni))?;
        }
        Contact::List => {
            let contacts = reach.list().await?;
            context.out.result(&contacts, || contacts.iter().map(line).collect::<Vec<_>>().join("\n"))?;
        }
        Contact::Show { name } => {
            let contact = reach.show(&name).await?;
            context.out.result(&contact, || details(&contact))?;
        }
        Contact::Rename { name, new_name } => {
            let change = ContactChange { name: Some(new_name), ..ContactChange::default() };
            let contact = reach.change(&name, change).await?;
            context.out.result(&contact, || format!("{name} is {} now", printable(&contact.name)))?;
        }
        Contact::Remove { name } => {
            let contact = reach.remove(&name).await?;
            context
                .out
                .result(&contact, || format!("{} is no contact any more", printable(&contact.name)))?;
        }
        Contact::Block { who } => {
            let block = reach.block(&who).await?;
            context.out.result(&block, || format!("{} is trusted for nothing", block_name(&block)))?;
        }
        Contact::Unblock { who } => {
            let block = reach.unblock(&who).await?;
            context.out.result(&block, || format!("{} is blocked no more", block_name(&block)))?;
        }
        Contact::Blocked => {
            let blocks = reach.blocks().await?;
            context.out.result(&blocks, || {
                let line = |block: &Block| format!("{}\tsince {}", block_name(block), block.since);
                if blocks.is_empty() {
                    "nobody".to_owned()
                } else {
                    blocks.iter().map(line).collect::<Vec<_>>().join("\n")
                }
            })?;
        }
        Contact::Requests { clear } => requests(context, &mut reach, clear).await?,
        Contact::Group(command) => group(context, &mut reach, command).await?,
        Contact::Succession(command) => succession(context, &mut reach, command).await?,
    }
    Ok(())
}

impl Reach {
    async fn add(&mut self, new: NewContact) -> Result<shapes::Contact> {
        match self {
            Reach::Node(node) => node.call(Method::POST, "/v1/contacts", Some(&new)).await,
            Reach::Home { book, .. } => book.add(&new).map(|contact| shape(book, &contact)),
        }
    }

    async fn list(&mut self) -> Result<Vec<shapes::Contact>> {
        match self {
            Reach::Node(node) => node.read("/v1/contacts").await,
            Reach::Home { book, .. } => Ok(book.list().iter().map(|contact| shape(book, contact)).collect()),
        }
    }

    async fn show(&mut self, name: &str) -> Result<shapes::Contact> {
        match self {
            Reach::Node(node) => node.read(&place(name)).await,
            Reach::Home { book, .. } => book.find(name).map(|contact| shape(book, &contact)),
        }
    }

    async fn change(&mut self, name: &str, change: ContactChange) -> Result<shapes::Contact> {
        match self {
            Reach::Node(node) => node.call(Method::PATCH, &place(name), Some(&change)).await,
            Reach::Home { book, .. } => apply(book, name, &change).map(|contact| shape(book, &contact)),
        }
    }

    async fn successions(&mut self) -> Result<Vec<shapes::Succession>> {
        match self {
            Reach::Node(node) => node.read("/v1/successions").await,
            Reach::Home { book, .. } => Ok(book.successions()),
        }
    }

    async fn decide(&mut self, name: &str, decision: &Decision) -> Result<shapes::Contact> {
        match self {
            Reach::Node(node) => {
                node.call(Method::POST, &format!("{}/succession", place(name)), Some(decision)).await
            }
            Reach::Home { book, .. } => book.decide(name, decision).map(|contact| shape(book, &contact)),
        }
    }

    async fn blocks(&mut self) -> Result<Vec<Block>> {
        match self {
            Reach::Node(node) => node.read("/v1/blocks").await,
            Reach::Home { book, .. } => Ok(book.blocks()),
        }
    }

    async fn block(&mut self, who: &str) -> Result<Block> {
        match self {
            Reach::Node(node) => {
                node.call(Method::POST, "/v1/blocks", Some(&NewBlock { who: who.to_owned() })).await
            }
            Reach::Home { book, .. } => book.block(who),
        }
    }

    async fn unblock(&mut self, who: &str) -> Result<Block> {
        match self {
            Reach::Node(node) => {
                let path = format!("/v1/blocks/{}", super::escape(who));
                node.call(Method::DELETE, &path, None::<&()>).await
            }
            Reach::Home { book, .. } => book.unblock(who),
        }
    }

    async fn remove(&mut self, name: &str) -> Result<shapes::Contact> {
        match self {
            Reach::Node(node) => node.call(Method::DELETE, &place(name), None::<&()>).await,
            Reach::Home { book, .. } => book.remove(name).map(|contact| shape(book, &contact)),
        }
    }
}

fn block_name(block: &Block) -> String {
    block.name.as_deref().map_or(block.ni.clone(), |name| format!("{}\t{}", printable(name), block.ni))
}

/// The path of a contact in the control API; names may hold any letter.
fn place(name: &str) -> String {
    let escaped = super::escape(name);
    format!("/v1/contacts/{escaped}")
}

fn line(contact: &shapes::Contact) -> String {
    let news = news_of(contact).map_or(String::new(), |news| format!("\t{news}"));
    let news = if contact.blocked { format!("\tBLOCKED{news}") } else { news };
    format!("{}\t{}{news}", printable(&contact.name), contact.ni)
}

/// What a person has to know and decide about a contact's key.
pub(super) fn news_of(contact: &shapes::Contact) -> Option<String> {
    match contact.successions.as_slice() {
        [] => None,
        [one] if one.state == Stand::Pending => Some(format!(
            "says that its new key is {} ({}); see 'kith contact succession list'",
            one.new, one.words
        )),
        all => {
            let keys: Vec<_> = all.iter().map(|one| one.new.as_str()).collect();
            Some(format!(
                "WARNING: different keys claim to follow this one, one of them may be a thief's; undecided: {}",
                keys.join(" ")
            ))
        }
    }
}

fn details(contact: &shapes::Contact) -> String {
    let mut lines = vec![
        format!("name    {}", printable(&contact.name)),
        format!("ni      {}", contact.ni),
        format!("path    {}", way(&contact.path, contact.relay.as_deref())),
    ];
    if contact.delegator.is_none() {
        lines.insert(2, format!("added   {}", contact.added));
    }
    lines.extend(news_of(contact).map(|news| format!("key     {news}")));
    lines.extend(contact.delegator.iter().map(|by| format!("by      {}", printable(by))));
    if contact.blocked {
        lines.push("blocked trusted for nothing; 'kith contact unblock' takes that back".to_owned());
    }
    lines.extend(contact.at.iter().map(|at| format!("at      {at}")));
    lines.extend(contact.groups.iter().map(|group| format!("group   {}", printable(group))));
    lines.join("\n")
}

async fn requests(context: &Context, reach: &mut Reach, clear: bool) -> Result<()> {
    if clear {
        match reach {
            Reach::Node(node) => {
                let _: Value = node.call(Method::DELETE, "/v1/requests", None::<&()>).await?;
            }
            Reach::Home { book, .. } => book.clear_requests()?,
        }
        context.out.result(&json!({ "cleared": true }), || "forgotten".to_owned())?;
        return Ok(());
    }
    let knocks: Vec<Knock> = match reach {
        Reach::Node(node) => node.read("/v1/requests").await?,
        Reach::Home { book, .. } => book.requests(),
    };
    context.out.result(&knocks, || {
        let lines: Vec<_> = knocks
            .iter()
            .map(|knock| {
                format!("{}\tlast {} from {}, in {} hours", knock.ni, knock.last, knock.from, knock.times)
            })
            .collect();
        if lines.is_empty() { "nobody".to_owned() } else { lines.join("\n") }
    })?;
    Ok(())
}

async fn succession(context: &Context, reach: &mut Reach, command: Succession) -> Result<()> {
    let (name, decision) = match command {
        Succession::List => {
            let all = reach.successions().await?;
            return context.out.result(&all, || {
                let lines: Vec<_> = all.iter().map(claim).collect();
                if lines.is_empty() { "none".to_owned() } else { lines.join("\n") }
            });
        }
        Succession::Confirm { name, ni } => (name, Decision { confirm: true, ni }),
        Succession::Reject { name, ni } => (name, Decision { confirm: false, ni }),
    };
    let contact = reach.decide(&name, &decision).await?;
    context.out.result(&contact, || {
        let verb = if decision.confirm { "is now" } else { "stays" };
        format!("{} {verb} {}", printable(&contact.name), contact.ni)
    })
}

fn claim(claim: &shapes::Succession) -> String {
    let state = match claim.state {
        Stand::Pending => "waits for you to confirm or reject it",
        Stand::Refused => "REFUSED: another key claims the same; name the right one to confirm it",
        Stand::Confirmed => "confirmed",
        Stand::Rejected => "rejected",
    };
    format!(
        "{}: {state}\n  old    {}\n  new    {}\n  words  {}\n  made   {}, seen {}",
        printable(&claim.contact),
        claim.old,
        claim.new,
        claim.words,
        claim.made,
        claim.seen
    )
}

async fn group(context: &Context, reach: &mut Reach, command: Group) -> Result<()> {
    let (group, contacts, joins) = match command {
        Group::List => return groups(context, reach).await,
        Group::Add { group, contacts } => (group, contacts, true),
        Group::Remove { group, contacts } => (group, contacts, false),
    };
    let mut changed = Vec::new();
    for name in &contacts {
        let (join, leave) = if joins { (Some(group.clone()), None) } else { (None, Some(group.clone())) };
        changed.push(reach.change(name, ContactChange { name: None, join, leave }).await?);
    }
    let verb = if joins { "in" } else { "not in" };
    context.out.result(&changed, || format!("{} {verb} {}", contacts.join(", "), printable(&group)))?;
    Ok(())
}

async fn groups(context: &Context, reach: &mut Reach) -> Result<()> {
    let mut groups = std::collections::BTreeMap::<String, Vec<String>>::new();
    for contact in reach.list().await? {
        for group in contact.groups {
            groups.entry(group).or_default().push(contact.name.clone());
        }
    }
    context.out.result(&groups, || {
        let line = |(group, names): (&String, &Vec<String>)| {
            format!(
                "{}\t{}",
                printable(group),
                names.iter().map(|n| printable(n)).collect::<Vec<_>>().join(", ")
            )
        };
        groups.iter().map(line).collect::<Vec<_>>().join("\n")
    })?;
    Ok(())
}
