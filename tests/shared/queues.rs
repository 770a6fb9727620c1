//! A Redis, an application, and jobs in every state, made of the keys that workers leave.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Cmd, FromRedisValue};
use seawall::{
    Job, Seawall,
    chaos::RedisServer,
    job::JobId,
    worker::{JobInfo, JobState, Page, Queue},
};
use tempfile::TempDir;

/// Longer than anything here takes.
pub(crate) const PLENTY: Duration = Duration::from_secs(60);

/// A worker's.
pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef";

pub(crate) struct Scene {
    pub(crate) redis: RedisServer,
    pub(crate) app: Seawall,
    _dir: TempDir,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let redis = RedisServer::start().await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let app = Seawall::builder(&redis.url(), dir.path()).unwrap();
        let app = app.connect().await.unwrap();
        app.connection().wait_ready(PLENTY).await.unwrap();
        Self {
            redis,
            app,
            _dir: dir,
        }
    }

    pub(crate) fn queue(&self) -> Queue {
        // A busy machine is no failure.
        self.app.queue("emails").with_timeout(PLENTY)
    }

    /// Enqueues a job that nothing has happened to.
    pub(crate) async fn add(&self, job: Job) -> JobId {
        let id = job.id();
        let _ = self.app.enqueue(job.for_worker()).await.unwrap();
        // On a busy machine it may have gone by way of the disk.
        self.app.flush().await;
        id
    }

    pub(crate) async fn queued(&self) -> JobId {
        self.add(Job::new("emails", "s3cret payload")).await
    }

    pub(crate) async fn scheduled(&self) -> JobId {
        let job = Job::new("emails", "s3cret payload").delayed(Duration::from_secs(3600));
        self.add(job).await
    }

    pub(crate) async fn running(&self) -> JobId {
        let id = self.taken().await;
        self.raw(
            "HSET running",
            &[id.as_bytes(), format!("1 {TOKEN}").as_bytes()],
        )
        .await;
        id
    }

    pub(crate) async fn failed(&self, tries: u32) -> JobId {
        let id = self.taken().await;
        self.raw(
            "HSET failures",
            &[id.as_bytes(), &failures(tries, "timeout")],
        )
        .await;
        self.raw("ZADD later", &[in_an_hour().as_bytes(), id.as_bytes()])
            .await;
        id
    }

    pub(crate) async fn dead(&self, error_type: &str) -> JobId {
        let id = self.taken().await;
        self.bury(id, error_type).await;
        id
    }

    /// What a worker does with a job of its last attempt.
    pub(crate) async fn bury(&self, id: JobId, error_type: &str) {
        self.raw("HSET failures", &[id.as_bytes(), &failures(4, error_type)])
            .await;
        self.raw("ZADD dead", &[in_an_hour().as_bytes(), id.as_bytes()])
            .await;
    }

    pub(crate) async fn done(&self, outcome: char) -> JobId {
        let id = self.taken().await;
        self.raw("HDEL jobs", &[id.as_bytes()]).await;
        self.raw("ZADD done", &[in_an_hour().as_bytes(), id.as_bytes()])
            .await;
        let result = format!("{outcome}the result");
        self.raw("HSET results", &[id.as_bytes(), result.as_bytes()])
            .await;
        id
    }

    /// A job that is in no list.
    pub(crate) async fn taken(&self) -> JobId {
        let id = self.queued().await;
        self.raw("LREM ready", &[b"0", id.as_bytes()]).await;
        id
    }

    /// `HSET running`, for example, with the rest of the arguments.
    pub(crate) async fn raw(&self, command: &str, arguments: &[&[u8]]) {
        self.ask::<redis::Value>(command, arguments).await;
    }

    pub(crate) async fn ask<T: FromRedisValue>(&self, command: &str, arguments: &[&[u8]]) -> T {
        let (name, part) = command.split_once(' ').unwrap();
        let mut cmd = Cmd::new();
        cmd.arg(name).arg(format!("seawall:{{emails}}:{part}"));
        for argument in arguments {
            cmd.arg(*argument);
        }
        self.redis.command(&cmd).await.unwrap()
    }

    /// All jobs of a state, walked through in pages of this size.
    pub(crate) async fn all(&self, state: JobState, size: usize) -> Vec<JobInfo> {
        let mut all = Vec::new();
        let mut page = Some(Page::first().with_size(size));
        while let Some(wanted) = page {
            let found = self.queue().jobs(state, wanted).await.unwrap();
            if state != JobState::Running {
                assert!(found.jobs.len() <= size);
            }
            all.extend(found.jobs);
            page = found.next;
        }
        all
    }

    pub(crate) async fn state(&self, id: JobId) -> Option<JobState> {
        let job = self.queue().job(id).await.unwrap();
        job.map(|job| job.state())
    }
}

/// As a worker notes them.
pub(crate) fn failures(tries: u32, error_type: &str) -> Vec<u8> {
    let mut noted = format!("{tries} 0\n");
    for at in 1..=tries {
        noted += &format!(
            "{{\"attempt\":{at},\"type\":\"{error_type}\",\"message\":\"no answer\",\"failed\":{at}000}}\n"
        );
    }
    noted.into_bytes()
}

pub(crate) fn in_an_hour() -> String {
    (now_ms() + 3_600_000).to_string()
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis() as u64
}

pub(crate) fn ids(jobs: &[JobInfo]) -> Vec<JobId> {
    jobs.iter().map(JobInfo::id).collect()
}
