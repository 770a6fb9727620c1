//! A sentinel that says what it is told to: real ones do not lie.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

pub(crate) struct FakeSentinel {
    addr: SocketAddr,
    /// The master it names, and in which epoch.
    says: Arc<Mutex<(SocketAddr, u64)>>,
    asked: watch::Sender<usize>,
    announced: watch::Sender<SocketAddr>,
    answers: watch::Sender<bool>,
    _task: JoinSet<()>,
}

impl FakeSentinel {
    pub(crate) async fn start(master: SocketAddr, epoch: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let says = Arc::new(Mutex::new((master, epoch)));
        let asked = watch::Sender::new(0);
        let announced = watch::Sender::new(master);
        let mut task = JoinSet::new();
        let answers = watch::Sender::new(true);
        let (say, count, announce) = (Arc::clone(&says), asked.clone(), announced.clone());
        let hold = answers.clone();
        task.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (say, count) = (Arc::clone(&say), count.clone());
                clients.spawn(serve(
                    socket,
                    say,
                    count,
                    announce.subscribe(),
                    hold.subscribe(),
                ));
            }
        });
        Self {
            addr,
            says,
            asked,
            announced,
            answers,
            _task: task,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn says(&self, master: SocketAddr, epoch: u64) {
        *self.says.lock() = (master, epoch);
    }

    /// Says so, and tells all who listen that the master has moved there.
    pub(crate) fn announces(&self, master: SocketAddr, epoch: u64) {
        self.says(master, epoch);
        self.announced.send_replace(master);
    }

    /// Whether it answers when it is asked for the master, or lets the question wait.
    pub(crate) fn answers(&self, answers: bool) {
        self.answers.send_replace(answers);
    }

    /// Waits until it has been asked `more` times from now.
    pub(crate) async fn asked(&self, more: usize) {
        let mut asked = self.asked.subscribe();
        let enough = *asked.borrow() + more;
        let waited = asked.wait_for(|asked| *asked >= enough);
        tokio::time::timeout(super::PATIENCE, waited)
            .await
            .unwrap()
            .unwrap();
    }
}

async fn serve(
    socket: TcpStream,
    says: Arc<Mutex<(SocketAddr, u64)>>,
    asked: watch::Sender<usize>,
    mut announced: watch::Receiver<SocketAddr>,
    mut answers: watch::Receiver<bool>,
) {
    let mut stream = BufReader::new(socket);
    announced.mark_unchanged();
    loop {
        let command = tokio::select! {
            command = read(&mut stream) => command,
            _ = announced.changed() => {
                let to = *announced.borrow();
                let news = format!("mymaster 127.0.0.1 1 {} {}", to.ip(), to.port());
                let message = format!(
                    ">3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n{}",
                    bulk(&news)
                );
                if stream.write_all(message.as_bytes()).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let Some(command) = command else {
            return;
        };
        let words: Vec<_> = command.iter().map(String::as_str).collect();
        if words.contains(&"GET-MASTER-ADDR-BY-NAME") {
            asked.send_modify(|asked| *asked += 1);
            let _ = answers.wait_for(|answers| *answers).await;
        }
        let (at, epoch) = *says.lock();
        let answer = match words.as_slice() {
            ["HELLO", ..] => "%1\r\n$5\r\nproto\r\n:3\r\n".to_owned(),
            ["SUBSCRIBE", ..] => {
                ">3\r\n$9\r\nsubscribe\r\n$14\r\n+switch-master\r\n:1\r\n".to_owned()
            }
            ["SENTINEL", "MYID"] => bulk("fake"),
            ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", _] => {
                let (ip, port) = (at.ip().to_string(), at.port().to_string());
                format!("*2\r\n{}{}", bulk(&ip), bulk(&port))
            }
            ["SENTINEL", "MASTER", _] => {
                let epoch = epoch.to_string();
                format!("%1\r\n{}{}", bulk("config-epoch"), bulk(&epoch))
            }
            ["SENTINEL", ..] => "*0\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut words = Vec::new();
    for _ in 0..number(stream, '*').await? {
        let mut word = vec![0; number(stream, '$').await? + 2];
        stream.read_exact(&mut word).await.ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8(word).ok()?);
    }
    Some(words)
}

async fn number(stream: &mut BufReader<TcpStream>, mark: char) -> Option<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    line.trim_end().strip_prefix(mark)?.parse().ok()
}
