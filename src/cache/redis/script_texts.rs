//! The texts of all scripts, for the test that holds the simulated Redis against real ones.

use super::net::purge::{LOCK_PURGE, NOTE};
use super::node::namespace::CLAIM;
use super::node::preflight::PREFLIGHT;
use super::node::scripts::ChannelScripts;
use super::tier::scripts::Scripts;

/// Returns the name and the text of each script that nodes run.
pub fn script_texts() -> Vec<(&'static str, String)> {
    let (tier, channel) = (Scripts::new(), ChannelScripts::new());
    let named = [
        ("grant", tier.grant),
        ("fill", tier.fill),
        ("begin", tier.begin),
        ("end", tier.end),
        ("renew", tier.renew),
        ("release", tier.release),
        ("deny", tier.deny),
        ("put", tier.put),
        ("grant_each", tier.grant_each),
        ("fill_each", tier.fill_each),
        ("heartbeat", channel.heartbeat),
        ("announce", channel.announce),
    ];
    let alone = [
        ("claim", CLAIM),
        ("lock_purge", LOCK_PURGE),
        ("note", NOTE),
        ("preflight", PREFLIGHT),
    ];
    let alone = alone.map(|(name, text)| (name, text.to_owned()));
    let named = named.into_iter().map(|(name, source)| (name, source.text));
    named.chain(alone).collect()
}
