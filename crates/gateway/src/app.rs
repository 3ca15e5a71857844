//! The composition root: every part is built here, once, in start order, and stopped in the reverse.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_codec::Framed;
use actix_http::{HttpService, KeepAlive, Request, h1};
use actix_rt::net::TcpStream;
use actix_server::{Server, ServerHandle};
use actix_service::{fn_factory, fn_service, map_config};
use actix_web::dev::AppConfig;
use actix_web::{App, HttpServer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::dev::DemoPage;
use crate::log::repeats;
use crate::node::Node;
use crate::reload::Reloader;
use crate::token::KeySet;
use crate::worker::Worker;
use crate::{admin, canary, control, drain, peers, public, tasks, upgrade};

/// How long a client may take to send a request's head.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// How often rates and shared grants that nobody needs any more are forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {addr} (key `{key}`): {cause}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The configuration key.
        key: &'static str,
        /// What the system says.
        cause: io::Error,
    },
    /// The broker cannot even be tried.
    #[error(transparent)]
    Broker(#[from] causeway_broker::RedisConfigError),
    /// The system refuses something else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// How a node has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Its clients had been sent away.
    Drained,
    /// A second signal ended the drain.
    CutShort,
}

/// A node that listens and has told where.
pub struct Gateway {
    node: Arc<Node>,
    public: Server,
    admin: actix_web::dev::Server,
    /// What SIGHUP is for, where there is a configuration that can be read again.
    reloads: Option<(Arc<Reloader>, Signal)>,
    /// Where the public listener really is.
    pub public_addr: SocketAddr,
    /// Where the admin listener really is.
    pub admin_addr: SocketAddr,
}

impl Gateway {
    /// Binds both listeners and starts everything behind them. With a `reloader`, SIGHUP and `POST /admin/reload`
    /// read the configuration again.
    ///
    /// # Panics
    /// Outside an actix system.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind then.
    pub fn start(
        config: Config,
        demo: Option<DemoPage>,
        reloader: Option<Reloader>,
    ) -> Result<Self, StartError> {
        let public_listener = listen(config.listen, "listen")?;
        let admin_listener = listen(config.admin_listen, "admin_listen")?;
        let (public_addr, admin_addr) = (public_listener.local_addr()?, admin_listener.local_addr()?);
        let workers = config.workers;
        let node = Node::start(config)?;
        let reloader = reloader.map(Arc::new);
        Ok(Self {
            public: public_server(public_listener, workers, &node, demo.map(Arc::new))?,
            admin: admin_server(admin_listener, &node, reloader.as_ref())?,
            reloads: reloader
                .map(|reloader| Ok::<_, io::Error>((reloader, signal(SignalKind::hangup())?)))
                .transpose()?,
            node,
            public_addr,
            admin_addr,
        })
    }

    /// Tells the two addresses on stdout, one line each, as scripts expect them.
    ///
    /// # Errors
    /// When stdout cannot be written to.
    pub fn announce(&self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "public http://{}", self.public_addr)?;
        writeln!(stdout, "admin http://{}", self.admin_addr)?;
        stdout.flush()
    }

    /// Serves until the node is told to stop (SIGTERM, SIGINT or `POST /admin/drain`) and the drain is over. A second
    /// signal ends the drain at once. Dropping the future stops the listeners without a drain.
    ///
    /// # Errors
    /// When a listener fails.
    pub async fn run(self) -> io::Result<Stopped> {
        let Self { node, public, admin, reloads, .. } = self;
        let handles = [public.handle(), admin.handle()];
        let stop = tasks::spawn(stop_when_told(Arc::clone(&node), handles));
        tasks::spawn(keep_keys_fresh(Arc::clone(&node)));
        tasks::spawn(control::follow(Arc::clone(&node)));
        tasks::spawn(peers::follow(Arc::clone(&node)));
        tasks::spawn(sweep(Arc::clone(&node)));
        if let Some((reloader, hangups)) = reloads {
            tasks::spawn(reload_on_signal(Arc::clone(&node), reloader, hangups));
        }
        tasks::spawn(tell_held_back(Arc::clone(&node)));
        let books = Arc::clone(&node);
        tasks::spawn(async move { canary::run(&*node.broker, &node.canary, &node.metrics).await });
        let ended = futures_util::future::try_join(public, admin).await;
        books.repeats.end_period();
        match ended {
            // They end well only because they were stopped.
            Ok(_) => stop.await.map_err(io::Error::other)?,
            Err(error) => {
                stop.abort();
                Err(error)
            }
        }
    }
}

fn listen(addr: SocketAddr, key: &'static str) -> Result<TcpListener, StartError> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(TcpListener::from(socket))
    };
    bind().map_err(|cause| StartError::Listen { addr, key, cause })
}

/// HTTP for every request but upgrades, which get the socket itself.
fn public_server(
    listener: TcpListener,
    workers: usize,
    node: &Arc<Node>,
    demo: Option<Arc<DemoPage>>,
) -> io::Result<Server> {
    let node = Arc::clone(node);
    let arriving = (node.descriptors.arriving / workers).max(1);
    let service = move || {
        let (node, demo) = (Arc::clone(&node), demo.clone());
        let upgrade_node = Arc::clone(&node);
        let upgrade = fn_factory(move || {
            // Called once on each worker's thread.
            let worker = Worker::start(&upgrade_node);
            async move {
                Ok::<_, ()>(fn_service(move |(request, framed): (Request, Framed<TcpStream, h1::Codec>)| {
                    upgrade::answer(&worker, &request, framed);
                    std::future::ready(Ok::<_, actix_http::Error>(()))
                }))
            }
        });
        let app = App::new().configure(move |config| public::routes(config, &node, demo.as_ref()));
        HttpService::build()
            .client_request_timeout(REQUEST_TIMEOUT)
            // The time a head may take is counted for the first request only, so there is no second one.
            .keep_alive(KeepAlive::Disabled)
            .upgrade(upgrade)
            .h1(map_config(app, |()| AppConfig::default()))
            .tcp()
    };
    Ok(Server::build()
        .workers(workers)
        // Those only whose request is not answered yet: after its upgrade a socket is not the server's any more.
        .max_concurrent_connections(arriving)
        .disable_signals()
        .shutdown_timeout(1)
        .listen("public", listener, service)?
        .run())
}

fn admin_server(
    listener: TcpListener,
    node: &Arc<Node>,
    reloader: Option<&Arc<Reloader>>,
) -> io::Result<actix_web::dev::Server> {
    let (node, reloader) = (Arc::clone(node), reloader.cloned());
    let app = move || {
        let (node, reloader) = (Arc::clone(&node), reloader.clone());
        App::new().configure(move |config| admin::routes(config, &node, reloader.as_ref()))
    };
    Ok(HttpServer::new(app).workers(1).disable_signals().shutdown_timeout(1).listen(listener)?.run())
}

/// Drains once told to, by a signal or over HTTP, then stops the listeners: the drain comes first, because a worker
/// that stops drops its connections.
async fn stop_when_told(node: Arc<Node>, listeners: [ServerHandle; 2]) -> io::Result<Stopped> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut signalled = async || tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} };
    let signalled_twice = async {
        signalled().await;
        // Where the drain was begun over HTTP, this is what a supervisor says next and changes nothing.
        node.stop_serving("signal");
        signalled().await;
    };
    let drained = async {
        node.serving_ends().await;
        control::take_leave(&node);
        drain::drain(&node).await;
        stop_all(&listeners, true).await;
    };
    tokio::select! {
        () = drained => Ok(Stopped::Drained),
        () = signalled_twice => {
            tracing::warn!(connections = node.admission.connections(), "a second signal: stopping at once");
            stop_all(&listeners, false).await;
            Ok(Stopped::CutShort)
        }
    }
}

async fn stop_all(listeners: &[ServerHandle], is_graceful: bool) {
    for listener in listeners {
        listener.stop(is_graceful).await;
    }
}

async fn reload_on_signal(node: Arc<Node>, reloader: Arc<Reloader>, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        // How it went is in the log; there is nobody else to tell.
        let _ = reloader.reload(&node, "SIGHUP");
    }
}

/// Keeps the published keys of those issuers fresh that the settings name, whatever they are by then.
async fn keep_keys_fresh(node: Arc<Node>) {
    let mut settings = node.watch_settings();
    let mut running: Vec<(Arc<KeySet>, JoinHandle<()>)> = Vec::new();
    loop {
        let now = Arc::clone(&settings.borrow_and_update());
        let sets: Vec<&Arc<KeySet>> = now.entrance.verifier.key_sets().collect();
        running.retain(|(set, task)| {
            let stays = sets.iter().any(|other| Arc::ptr_eq(other, set));
            if !stays {
                task.abort();
            }
            stays
        });
        for set in sets {
            if !running.iter().any(|(other, _)| Arc::ptr_eq(other, set)) {
                running.push((Arc::clone(set), tasks::spawn(Arc::clone(set).keep_fresh())));
            }
        }
        drop(now);
        if settings.changed().await.is_err() {
            return;
        }
    }
}

/// Tells every now and then which failures were not told one by one.
async fn tell_held_back(node: Arc<Node>) {
    let mut interval = tokio::time::interval(repeats::PERIOD);
    loop {
        interval.tick().await;
        node.repeats.end_period();
    }
}

async fn sweep(node: Arc<Node>) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        interval.tick().await;
        node.admission.sweep();
        node.settings().entrance.verifier.sweep();
    }
}
