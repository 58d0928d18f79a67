//! What the guest tells of itself unasked: `firn-event {json}` lines.

use serde_json::Value;

/// Begins every such line.
const MARK: &str = "firn-event ";

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its name: `frozen`, `restored`, `consumed`, `refused`...
    pub name: String,
    /// The whole object.
    pub fields: Value,
}

impl Event {
    /// Reads a console line; `None` if it tells no event, or broke off.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (_, json) = line.split_once(MARK)?;
        let fields: Value = serde_json::from_str(json.trim_end()).ok()?;
        let name = fields.get("event")?.as_str()?.to_owned();
        Some(Self { name, fields })
    }

    /// All events of a console's text, in order.
    #[must_use]
    pub fn all(text: &str) -> Vec<Self> {
        text.lines().filter_map(Self::parse).collect()
    }

    /// The last event called `name`.
    #[must_use]
    pub fn last(text: &str, name: &str) -> Option<Self> {
        Self::all(text)
            .into_iter()
            .rfind(|event| event.name == name)
    }

    /// A text field.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.as_str()
    }

    /// A number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<f64> {
        self.fields.get(name)?.as_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_among_other_lines() {
        let text = "firn> \nfrozen: image 1\nfirn-event {\"event\":\"frozen\",\"generation\":1,\"disk\":\"xvdb\"}\r\n\
                    firn-event {\"event\":\"frozen\",\"gener\nfirn-result {\"job\":\"x\",\"ok\":true}\n";
        let events = Event::all(text);
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].number("generation"), Some(1.0));
        assert_eq!(events[0].text("disk"), Some("xvdb"));
        assert!(Event::last(text, "restored").is_none());
    }
}
