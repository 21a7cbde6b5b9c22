//! JSON to be written, with its members in the order in which they were put in.

use std::fmt;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A finite number; what is not finite is written as `null`.
    Number(f64),
    /// A string.
    Text(String),
    /// A list.
    Array(Vec<Json>),
    /// Members in order.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// A string.
    pub fn text(text: &str) -> Json {
        Json::Text(text.to_owned())
    }

    /// An object of these members.
    pub fn object<const N: usize>(members: [(&str, Json); N]) -> Json {
        Json::Object(
            members
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        )
    }

    /// Adds a member to an object.
    pub fn insert(&mut self, name: &str, value: Json) {
        match self {
            Json::Object(members) => members.push((name.to_owned(), value)),
            _ => panic!("only an object has members"),
        }
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(value) => write!(f, "{value}"),
            Json::Number(number) if !number.is_finite() => f.write_str("null"),
            Json::Number(number) if number.fract() == 0.0 && number.abs() < 1e15 => write!(f, "{number:.0}"),
            // Six digits behind the point: nanoseconds as parts of a millisecond.
            Json::Number(number) => f.write_str(format!("{number:.6}").trim_end_matches('0').trim_end_matches('.')),
            Json::Text(text) => f.write_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?),
            Json::Array(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if at == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Json::Object(members) => {
                f.write_str("{")?;
                for (at, (name, value)) in members.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    write!(f, "{comma}{}:{value}", Json::text(name))?;
                }
                f.write_str("}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_json() {
        let value = Json::object([
            ("a \"quoted\" name\n", Json::Number(1.5)),
            ("whole", Json::Number(1e9)),
            ("nothing", Json::Number(f64::NAN)),
            ("list", Json::Array(vec![Json::Null, Json::Bool(true), Json::text("x")])),
        ]);
        let read: serde_json::Value = serde_json::from_str(&value.to_string()).unwrap();
        assert_eq!(read["a \"quoted\" name\n"], 1.5);
        assert_eq!(read["whole"], 1_000_000_000);
        assert!(read["nothing"].is_null());
        assert_eq!(read["list"][2], "x");
    }
}
