//! Reads what a node of a cluster knows: the answer to CLUSTER NODES.

/// One line of the answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) port: u16,
    pub(super) is_self: bool,
    pub(super) is_master: bool,
    /// Nobody misses it, and it can be reached.
    pub(super) is_well: bool,
    /// The node that it replicates.
    pub(super) primary: Option<String>,
    pub(super) epoch: u64,
    /// The slots that it serves, both ends included.
    pub(super) ranges: Vec<(u16, u16)>,
}

impl Node {
    pub(super) fn has(&self, slot: u16) -> bool {
        self.ranges
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&slot))
    }

    /// How many slots it serves.
    pub(super) fn slots(&self) -> u32 {
        self.ranges
            .iter()
            .map(|(first, last)| u32::from(*last) - u32::from(*first) + 1)
            .sum()
    }
}

/// Reads the whole answer, leaving out lines of another form.
pub(super) fn parse(text: &str) -> Vec<Node> {
    text.lines().filter_map(line).collect()
}

fn line(text: &str) -> Option<Node> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [id, address, flags, primary, _, _, epoch, link, slots @ ..] = words.as_slice() else {
        return None;
    };
    let (endpoint, _) = address.split_once('@')?;
    let (_, port) = endpoint.rsplit_once(':')?;
    let has = |flag: &str| flags.split(',').any(|set| set == flag);
    Some(Node {
        id: (*id).to_owned(),
        port: port.parse().ok()?,
        is_self: has("myself"),
        is_master: has("master"),
        is_well: !has("fail") && !has("fail?") && !has("handshake") && *link == "connected",
        primary: (*primary != "-").then(|| (*primary).to_owned()),
        epoch: epoch.parse().ok()?,
        ranges: slots.iter().filter_map(|slot| range(slot)).collect(),
    })
}

/// `7` or `0-5460`. A slot on the move, `[7->-id]`, is listed beside those.
fn range(text: &str) -> Option<(u16, u16)> {
    if text.starts_with('[') {
        return None;
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.parse().ok()?, last.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whole() {
        let text = "aa 127.0.0.1:7000@17000,host myself,master - 0 0 3 connected 0-9 11 [7->-bb]\n\
                    bb 127.0.0.1:7001@17001 slave,fail aa 0 0 3 disconnected\n";
        let nodes = parse(text);
        assert_eq!(nodes.len(), 2);
        assert_eq!(
            (nodes[0].port, nodes[0].epoch, nodes[0].slots()),
            (7000, 3, 11)
        );
        assert!(nodes[0].is_self && nodes[0].is_master && nodes[0].is_well);
        assert!(nodes[0].has(9) && nodes[0].has(11) && !nodes[0].has(10));
        assert_eq!(nodes[1].primary.as_deref(), Some("aa"));
        assert!(!nodes[1].is_well && !nodes[1].is_master);
    }
}
