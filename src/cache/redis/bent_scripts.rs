//! For the simulation: how each rule of a script is bent.

use crate::coherence::rules::Rule;
#[cfg(layercache_bends)]
use crate::coherence::rules::kept;

/// A rule, the lines of a script that keep it, and what stands in their place when it is bent.
const BENT: &[(Rule, &str, &str)] = &[
    (
        Rule::FillChecksItsLease,
        "if lease() ~= ARGV[3] then return 0 end\n",
        "",
    ),
    (
        Rule::BeginRemovesTheLease,
        "remove()\nredis.call('DEL', KEYS[2])\nfenced()\n",
        "remove()\nfenced()\n",
    ),
    (
        Rule::BeginRemovesTheEntry,
        "remove()\nredis.call('DEL', KEYS[2])\nfenced()\n",
        "redis.call('DEL', KEYS[2])\nfenced()\n",
    ),
    (
        Rule::TheFence,
        "if fenced() then\n  if redis.call('PTTL'",
        "if false then\n  if redis.call('PTTL'",
    ),
    (
        Rule::EndRemovesTheLease,
        "redis.call('DEL', KEYS[2])\nif ARGV[4] == '1'",
        "if ARGV[4] == '1'",
    ),
    (
        Rule::EndRemovesTheEntry,
        "remove()\nreturn {stood, 0}\n",
        "return {stood, 0}\n",
    ),
    (
        Rule::EndChecksItsToken,
        "local stood = redis.call('SREM', KEYS[3], ARGV[3])\n",
        "redis.call('SREM', KEYS[3], ARGV[3])\nlocal stood = 1\n",
    ),
    (
        Rule::EndFillsUnderItsOwnLease,
        "stood == 1 and own and not fenced()",
        "stood == 1",
    ),
    (
        Rule::TheFenceIsASet,
        "local stood = redis.call('SREM', KEYS[3], ARGV[3])\n",
        "local stood = redis.call('SREM', KEYS[3], ARGV[3])\nredis.call('DEL', KEYS[3])\n",
    ),
    (
        Rule::RenewalNeverRecreates,
        "if redis.pcall('SISMEMBER', KEYS[3], ARGV[3]) ~= 1 then return 0 end\n",
        "redis.call('SADD', KEYS[3], ARGV[3])\n",
    ),
];

/// Returns the text of a script, without the rule that is bent.
#[cfg(layercache_bends)]
pub(super) fn bent(text: String) -> String {
    let bent = BENT.iter().filter(|(rule, ..)| !kept(*rule));
    bent.fold(text, |text, (_, lines, instead)| {
        text.replace(lines, instead)
    })
}

#[cfg(all(test, feature = "testing"))]
#[test]
fn the_lines_of_each_rule_are_in_a_script() {
    let texts = super::script_texts::script_texts();
    for (rule, lines, instead) in BENT {
        let has = |(_, text): &(_, String)| text.contains(lines);
        assert!(texts.iter().any(has), "{rule:?}");
        assert_ne!(lines, instead, "{rule:?}");
    }
}
