//! Random keys and arguments for the scripts of the nodes.

use crate::generate::Generator;

impl Generator<'_> {
    /// Returns the count of keys, the keys and the arguments for one of the nodes' scripts.
    pub(crate) fn call_of(&mut self, name: &str) -> Vec<String> {
        let token = self.one(&["1", "2", "3"]).to_owned();
        let is_hash = self.rng.bool();
        let kind = if is_hash { "hash" } else { "set" }.to_owned();
        let member = if is_hash {
            String::new()
        } else {
            "x".to_owned()
        };
        let flag = self.one(&["0", "1"]).to_owned();
        let life = self.life();
        let entry = self.one(&["{n}a", "{n}b"]).to_owned();
        let [lease, fence] = ["lease", "fence"].map(|part| match self.rng.u8(..12) {
            // A value of another type.
            0 => "{n}c".to_owned(),
            _ => format!("{entry}::{part}"),
        });
        let text = |text: &str| text.to_owned();
        let written = match is_hash {
            true => [&life, "1", "gone", "path", "p", "length", "5"]
                .map(text)
                .to_vec(),
            false => [&life, "0"].map(text).to_vec(),
        };
        let mut call = vec![text("3"), entry.clone(), lease, fence];
        call.extend([kind.clone(), member.clone(), token.clone()]);
        match name {
            "grant" => call.extend([life, flag]),
            "fill" | "put" => call.extend(written),
            "begin" => call.extend([life, flag]),
            "end" => {
                call.push(flag);
                call.extend(written);
            }
            "renew" => call.push(life),
            "release" | "deny" => {}
            "grant_each" | "fill_each" => {
                let families: &[&str] = match name {
                    "grant_each" => &["", "::lease", "::fence"],
                    _ => &["", "::lease"],
                };
                let subjects = ["{n}a", "{n}b"];
                let count = self.rng.usize(1..3);
                let keys = subjects.iter().take(count).flat_map(|subject| {
                    families
                        .iter()
                        .map(move |family| format!("{subject}{family}"))
                });
                let mut call = vec![(families.len() * count).to_string()];
                call.extend(keys);
                let mut each = vec![kind, member, token];
                each.extend(match name {
                    "grant_each" => vec![life, flag],
                    _ => written,
                });
                call.extend([count.to_string(), each.len().to_string()]);
                call.extend(each);
                call.extend([text("1"), text("3")]);
                call.extend((0..count).map(|_| self.one(&["1", "2", "3"]).to_owned()));
                return call;
            }
            "heartbeat" => {
                let node = self.one(&["10", "20", "30"]);
                return ["2", "{n}nodes", "c1", node, "90000", "beat", "77"]
                    .map(text)
                    .to_vec();
            }
            "announce" => return ["2", "{n}nodes", "c1", "m1", "m2"].map(text).to_vec(),
            "claim" => return ["1", &entry, "storage"].map(text).to_vec(),
            "lock_purge" => {
                let node = self.one(&["1", "2"]);
                return ["1", &entry, node, "60000"].map(text).to_vec();
            }
            "note" => return ["2", &entry, "{n}b", "server"].map(text).to_vec(),
            _ => return ["4", "{n}p1", "{n}p2", "{n}p3", "{n}p4"].map(text).to_vec(),
        }
        call
    }
}
