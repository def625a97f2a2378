//! Why a task was or would be a miss: a comparison of two key breakdowns.

use std::collections::BTreeSet;

use millrace_types::{Content, ItemParts, KeyParts};
use serde_json::Value;

/// One difference between two keys.
#[derive(Debug, Clone, PartialEq)]
pub enum Difference {
    /// The component has other bytes.
    Code {
        /// The old digest, shortened.
        old: String,
        /// The new digest, shortened.
        new: String,
    },
    /// A param has another value.
    Param {
        /// Its path.
        path: String,
        /// The old value; `None` if it did not exist.
        old: Option<Value>,
        /// The new value; `None` if it no longer exists.
        new: Option<Value>,
    },
    /// A column has other content in some parts.
    Column {
        /// The port it is on.
        port: String,
        /// Its name.
        column: String,
        /// Parts that differ.
        parts: usize,
        /// All parts.
        of: usize,
    },
    /// A column is read now, or has another type.
    ColumnAdded {
        /// The port it is on.
        port: String,
        /// Its name and type.
        column: String,
    },
    /// A column is no longer read, or had another type.
    ColumnRemoved {
        /// The port it is on.
        port: String,
        /// Its name and type.
        column: String,
    },
    /// Rows were added, removed or divided into other parts.
    Rows {
        /// The port.
        port: String,
        /// Rows and parts before.
        old: (u64, usize),
        /// Rows and parts now.
        new: (u64, usize),
    },
    /// A blob has other bytes.
    Blob {
        /// The port.
        port: String,
        /// The instance, where several are gathered.
        instance: Option<String>,
    },
    /// A port was connected, disconnected, or gathers other instances.
    Connection {
        /// The port.
        port: String,
    },
    /// Results of parts that are merged here.
    Partials {
        /// The number that differ.
        changed: usize,
        /// The number of all.
        of: usize,
    },
    /// A granted folder or variable has changed, or is granted now or no longer.
    Grant {
        /// `read:FOLDER` or `env:NAME`.
        name: String,
    },
    /// The keys differ in something else.
    Other,
}

/// Why there is no record to use.
#[derive(Debug, Clone, PartialEq)]
pub enum MissReason {
    /// No such task ran before.
    New,
    /// Something has changed.
    Changed(Vec<Difference>),
    /// Nothing has changed, but the record or an object of it is missing.
    Gone,
    /// The record is older than the policy allows.
    Expired,
    /// The policy forbids cached results.
    CacheOff,
}

/// The differences, most informative first.
pub fn differences(old: &KeyParts, new: &KeyParts) -> Vec<Difference> {
    let mut out = Vec::new();
    if old.component != new.component {
        out.push(Difference::Code { old: old.component.short(), new: new.component.short() });
    }
    if old.params != new.params {
        params("", Some(&old.params.value()), Some(&new.params.value()), &mut out);
    }
    let ports: BTreeSet<_> = old.inputs.iter().chain(&new.inputs).map(|input| &input.port).collect();
    for port in ports {
        let of =
            |parts: &KeyParts| parts.inputs.iter().find(|input| input.port == *port).map(|input| input.items.clone());
        match (of(old), of(new)) {
            (Some(a), Some(b)) => items(port.as_str(), &a, &b, &mut out),
            _ => out.push(Difference::Connection { port: port.to_string() }),
        }
    }
    let names: BTreeSet<_> = old.grants.iter().chain(&new.grants).map(|(name, _)| name).collect();
    let of = |parts: &KeyParts, name: &str| parts.grants.iter().find(|(known, _)| known == name).map(|(_, d)| *d);
    let changed = names.into_iter().filter(|name| of(old, name) != of(new, name));
    out.extend(changed.map(|name| Difference::Grant { name: name.clone() }));
    if out.is_empty() && old != new {
        out.push(Difference::Other);
    }
    out
}

fn params(path: &str, old: Option<&Value>, new: Option<&Value>, out: &mut Vec<Difference>) {
    match (old, new) {
        (a, b) if a == b => {}
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                params(&inner, a.get(key), b.get(key), out);
            }
        }
        (a, b) => out.push(Difference::Param { path: path.to_owned(), old: a.cloned(), new: b.cloned() }),
    }
}

fn items(port: &str, old: &[ItemParts], new: &[ItemParts], out: &mut Vec<Difference>) {
    let instances = |items: &[ItemParts]| items.iter().map(|item| item.instance.clone()).collect::<Vec<_>>();
    if instances(old) != instances(new) {
        out.push(Difference::Connection { port: port.to_owned() });
        return;
    }
    for (a, b) in old.iter().zip(new).filter(|(a, b)| a != b) {
        match (&a.content, &b.content) {
            (Content::Blob(_), Content::Blob(_)) => {
                let instance = b.instance.as_ref().map(ToString::to_string);
                out.push(Difference::Blob { port: port.to_owned(), instance });
            }
            (Content::Partials(a), Content::Partials(b)) => {
                let known: BTreeSet<_> = a.iter().collect();
                let same = b.iter().filter(|digest| known.contains(digest)).count();
                out.push(Difference::Partials { changed: b.len() - same, of: b.len() });
            }
            (Content::Table { rows: ra, columns: ca }, Content::Table { rows: rb, columns: cb }) => {
                if ra != rb {
                    let of = |rows: &[u64]| (rows.iter().sum(), rows.len());
                    out.push(Difference::Rows { port: port.to_owned(), old: of(ra), new: of(rb) });
                }
                for column in cb {
                    let is = |known: &&millrace_types::ColumnParts| {
                        known.name == column.name && known.data_type == column.data_type
                    };
                    match ca.iter().find(is) {
                        None => out.push(Difference::ColumnAdded {
                            port: port.to_owned(),
                            column: format!("{} ({})", column.name, column.data_type),
                        }),
                        Some(known) if known.chunks != column.chunks => {
                            let same = column.chunks.iter().filter(|chunk| known.chunks.contains(chunk)).count();
                            out.push(Difference::Column {
                                port: port.to_owned(),
                                column: column.name.to_string(),
                                parts: column.chunks.len() - same,
                                of: column.chunks.len(),
                            });
                        }
                        Some(_) => {}
                    }
                }
                for column in ca {
                    if !cb.iter().any(|known| known.name == column.name && known.data_type == column.data_type) {
                        let column = format!("{} ({})", column.name, column.data_type);
                        out.push(Difference::ColumnRemoved { port: port.to_owned(), column });
                    }
                }
            }
            _ => out.push(Difference::Connection { port: port.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_types::{
        CanonicalJson, ColumnDigest, ColumnName, ColumnParts, ComponentDigest, DataType, InputParts, Phase, PortName,
    };
    use serde_json::json;

    use super::*;

    fn parts(params: Value, chunk: u8) -> KeyParts {
        let columns = vec![ColumnParts {
            name: ColumnName::new("tenure"),
            data_type: DataType::Int64,
            nullable: true,
            chunks: vec![ColumnDigest::from_bytes([chunk; 32]), ColumnDigest::from_bytes([9; 32])],
        }];
        let content = Content::Table { rows: vec![3, 4], columns };
        KeyParts {
            component: ComponentDigest::from_bytes([0; 32]),
            params: CanonicalJson::new(&params),
            phase: Phase::Whole,
            inputs: vec![InputParts {
                port: PortName::new("input").unwrap(),
                items: vec![ItemParts { instance: None, content }],
            }],
            grants: vec![],
        }
    }

    #[test]
    fn a_changed_param_is_named_with_both_values() {
        let found =
            differences(&parts(json!({ "a": { "b": 1 }, "c": 2 }), 1), &parts(json!({ "a": { "b": 3 }, "c": 2 }), 1));
        assert_eq!(found, [Difference::Param { path: "a.b".into(), old: Some(json!(1)), new: Some(json!(3)) }]);
    }

    #[test]
    fn a_changed_column_has_the_number_of_changed_parts() {
        let found = differences(&parts(json!({}), 1), &parts(json!({}), 2));
        assert_eq!(found, [Difference::Column { port: "input".into(), column: "tenure".into(), parts: 1, of: 2 }]);
        assert!(differences(&parts(json!({}), 1), &parts(json!({}), 1)).is_empty());
    }
}
