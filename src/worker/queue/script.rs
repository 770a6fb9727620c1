//! The scripts that look at a queue, and how they are asked.

use std::sync::LazyLock;

use redis::{Cmd, FromRedisValue, Value, from_redis_value};

use crate::{
    call::{RedisCall, Repeat, Reply, ScriptCall},
    classify::{Class, Landed, Verdict},
    error::{Error, ErrorKind},
    job::task::Keys,
};

/// A script, and the name that its calls have in metrics and errors.
pub(super) struct Script {
    name: &'static str,
    source: &'static str,
    sha1: LazyLock<String>,
}

macro_rules! script {
    ($script:ident, $name:literal, $file:literal) => {
        pub(super) static $script: Script = Script {
            name: $name,
            source: concat!(include_str!("check.lua"), include_str!($file)),
            sha1: LazyLock::new(|| redis::Script::new($script.source).get_hash().to_owned()),
        };
    };
}

script!(STAT, "queue_stat", "stat.lua");
script!(FACTS, "queue_job", "facts.lua");
script!(IDS, "queue_jobs", "ids.lua");
script!(TRIES, "queue_retriers", "tries.lua");
script!(REQUEUE, "queue_requeue", "requeue.lua");
script!(REMOVE, "queue_remove", "remove.lua");
script!(WORKERS, "queue_workers", "workers.lua");

impl Script {
    /// A run of it. Each of these leaves Redis, when it is done twice, as doing it once does.
    pub(super) fn call<A: AsRef<[u8]>>(
        &self,
        keys: &Keys,
        arguments: impl IntoIterator<Item = A>,
    ) -> RedisCall {
        let mut cmd = Cmd::new();
        cmd.arg("EVALSHA").arg(&*self.sha1).arg(keys.all().len());
        for key in keys.all() {
            cmd.arg(key);
        }
        for argument in arguments {
            cmd.arg(argument.as_ref());
        }
        RedisCall::new(self.name, ScriptCall::new(self.source, cmd)).with_repeat(Repeat::Safe)
    }

    /// Its answer.
    pub(super) fn read<T: FromRedisValue>(&self, keys: &Keys, reply: Reply) -> Result<T, Error> {
        let answer = match reply.into_value() {
            Value::Array(parts) => <[Value; 2]>::try_from(parts).ok(),
            _ => None,
        };
        let [verdict, found] = answer.ok_or_else(|| self.unreadable())?;
        match from_redis_value::<String>(verdict).as_deref() {
            Ok("ok") => from_redis_value(found).map_err(|_| self.unreadable()),
            Ok("wrong") => {
                let (at, is) =
                    from_redis_value::<(usize, String)>(found).map_err(|_| self.unreadable())?;
                Err(self.wrong_type(keys, at, &is))
            }
            _ => Err(self.unreadable()),
        }
    }

    /// Somebody else uses a key of the queue's, which is told by its part: the name itself is in no error.
    fn wrong_type(&self, keys: &Keys, at: usize, is: &str) -> Error {
        let key = at.checked_sub(1).and_then(|at| keys.all().get(at));
        let part = key.and_then(|key| key.rsplit(':').next());
        let part = part.unwrap_or("?");
        Error::new(
            ErrorKind::Redis,
            Verdict::new(Class::Permanent, Landed::No),
        )
        .with_cause(format!(
            "WRONGTYPE the queue's key that ends in :{part} is a {is} of somebody else's; workers can't use the queue \
             either until it is renamed or removed"
        ))
        .with_call(self.name)
    }

    /// A proxy in between, perhaps.
    fn unreadable(&self) -> Error {
        Error::new(
            ErrorKind::Redis,
            Verdict::new(Class::Permanent, Landed::Maybe),
        )
        .with_cause("the answer is not one of seawall's script")
        .with_call(self.name)
    }
}
