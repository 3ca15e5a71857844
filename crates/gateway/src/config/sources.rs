//! Where configuration is given: the file, the environment, the flags, each overriding the ones before it.
//!
//! They are kept apart until they are read, so that of each value it can be said which of them gave it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::Value;

use super::{ConfigError, ENV_PREFIX, Given, Overrides};

/// Places of configuration. Reading them again reads what they hold by then.
#[derive(Clone, Debug)]
pub struct Sources {
    file: Option<PathBuf>,
    flags: Overrides,
}

/// What was read, and of each value where.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Everything that was given.
    pub given: Given,
    /// The later overrides the earlier.
    layers: Vec<(Layer, Figment)>,
}

/// Which place gave a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// None: it is the default.
    Default,
    /// The file.
    File(PathBuf),
    /// The environment variable of this name.
    Environment(String),
    /// This flag of the command line.
    Flag(String),
}

#[derive(Clone, Debug)]
enum Layer {
    File(PathBuf),
    Environment,
    Flags,
}

impl Sources {
    /// `file` (if one is named), the environment, and `flags`.
    pub fn new(file: Option<&Path>, flags: &Overrides) -> Self {
        Self { file: file.map(Path::to_owned), flags: flags.clone() }
    }

    /// Reads them all.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] with the key, the value and what was expected.
    pub fn read(&self) -> Result<Reading, ConfigError> {
        let mut layers = Vec::new();
        if let Some(file) = &self.file {
            // Later, the error would not name the file.
            fs::File::open(file)
                .map_err(|error| ConfigError::Unreadable(format!("{}: {error}", file.display())))?;
            layers.push((Layer::File(file.clone()), Figment::from(Toml::file_exact(file))));
        }
        layers.push((Layer::Environment, Figment::from(environment())));
        layers.push((Layer::Flags, self.flags()));
        let merged = layers.iter().fold(Figment::new(), |merged, (_, layer)| merged.merge(layer));
        Ok(Reading { given: Given::extract(&merged)?, layers })
    }

    fn flags(&self) -> Figment {
        let flags = Figment::from(Serialized::defaults(&self.flags));
        match &self.flags.redis_url {
            Some(url) => flags.merge(Serialized::default("redis.url", url)),
            None => flags,
        }
    }
}

impl Reading {
    /// Which place gave the value at `path`, keys joined by dots. A list comes from one place as a whole.
    pub fn origin(&self, path: &str) -> Origin {
        let giver = self.layers.iter().rev().find(|(_, layer)| layer.contains(path));
        match giver.map(|(layer, _)| layer) {
            None => Origin::Default,
            Some(Layer::File(file)) => Origin::File(file.clone()),
            Some(Layer::Environment) => {
                Origin::Environment(format!("{ENV_PREFIX}{}", path.replace('.', "__").to_ascii_uppercase()))
            }
            Some(Layer::Flags) => Origin::Flag(format!("--{}", path.replace(['.', '_'], "-"))),
        }
    }

    /// What is in effect, as TOML: secrets masked, each value followed by a comment that names where it came from.
    ///
    /// # Errors
    /// When a value cannot be written as TOML, for instance a path that is not text.
    pub fn annotated(&self) -> Result<String, toml::ser::Error> {
        let mut text = String::new();
        self.annotate(&mut text, "", &toml::Table::try_from(&self.given)?);
        Ok(text.trim_end().to_owned())
    }

    /// Writes a table: first what stands in it, then the tables below it.
    fn annotate(&self, text: &mut String, path: &str, table: &toml::Table) {
        let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let (tables, values): (Vec<_>, Vec<_>) = table.iter().partition(|(_, value)| holds_tables(value));
        for (key, value) in values {
            *text += &format!("{key} = {value}  # {}\n", self.origin(&below(key)));
        }
        for (key, value) in tables {
            let path = below(key);
            match value {
                toml::Value::Table(table) => {
                    *text += &format!("\n[{path}]\n");
                    self.annotate(text, &path, table);
                }
                value => {
                    for entry in value.as_array().into_iter().flatten().filter_map(toml::Value::as_table) {
                        *text += &format!("\n[[{path}]]  # {}\n", self.origin(&path));
                        *text += &entry
                            .iter()
                            .map(|(key, value)| format!("{key} = {value}\n"))
                            .collect::<String>();
                    }
                }
            }
        }
    }
}

/// Whether the value is written behind a header of its own.
fn holds_tables(value: &toml::Value) -> bool {
    value.is_table() || value.as_array().and_then(|list| list.first()).is_some_and(toml::Value::is_table)
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(file) => file.display().fmt(f),
            Self::Environment(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// The environment variables that are ours: an orchestrator adds others with the same prefix, such as
/// `CAUSEWAY_SERVICE_HOST` for a Kubernetes service of that name.
fn environment() -> Env {
    let top = Value::serialize(Given::default()).ok().and_then(Value::into_dict);
    let top = top.expect("the configuration is a table");
    let top_of = |key: &str| key.split("__").next().unwrap_or_default().to_ascii_lowercase();
    Env::prefixed(ENV_PREFIX).filter(move |key| top.contains_key(&top_of(key.as_str()))).split("__")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(toml: &str, redis_url: Option<&str>) -> Reading {
        let flags = Overrides { redis_url: redis_url.map(str::to_owned), ..Overrides::default() };
        let sources = Sources::new(None, &flags);
        let file = Figment::from(Toml::string(toml));
        let layers = vec![(Layer::File("a.toml".into()), file), (Layer::Flags, sources.flags())];
        let merged = layers.iter().fold(Figment::new(), |merged, (_, layer)| merged.merge(layer));
        Reading { given: Given::extract(&merged).unwrap(), layers }
    }

    #[test]
    fn of_each_value_it_is_known_who_gave_it() {
        let reading = reading(
            "listen = '127.0.0.1:1'\n[redis]\nurl = 'redis://a'\ntopic_prefix = 'p'\n[[auth.keys]]\nkid = 'a'\nalgorithm = 'HS256'",
            Some("redis://b"),
        );
        let origin = |path| reading.origin(path).to_string();
        assert_eq!(origin("listen"), "a.toml");
        assert_eq!(origin("admin_listen"), "default");
        assert_eq!(origin("redis.topic_prefix"), "a.toml");
        assert_eq!(origin("redis.url"), "--redis-url");
        assert_eq!(origin("auth.keys"), "a.toml");
        assert_eq!(origin("auth.leeway"), "default");
    }

    #[test]
    fn what_is_shown_can_be_read_again_and_holds_no_secret() {
        let reading = reading(
            "trusted_proxies = ['10.0.0.0/8']\n[redis]\nurl = 'redis://:hunter2@a'\n[[auth.keys]]\nkid = 'a'\nalgorithm = 'HS256'\nsecret = 'hunter2'",
            None,
        );
        let shown = reading.annotated().unwrap();
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("trusted_proxies = [\"10.0.0.0/8\"]  # a.toml\n"), "{shown}");
        assert!(shown.contains("\n[[auth.keys]]  # a.toml\n"), "{shown}");
        let again: toml::Table = toml::Table::try_from(
            Given::extract(&Figment::from(Toml::string(&shown))).expect("it is a configuration"),
        )
        .unwrap();
        assert_eq!(again, toml::Table::try_from(&reading.given).unwrap());
    }
}
