//! The scenarios, each named after the question it answers, and what they share: a gateway under test and a
//! crowd that arrives there.

mod fanout;
mod floor;
mod idle;

use std::error::Error;
use std::io;

use clap::Args;

pub(crate) use self::fanout::{FanoutArgs, fanout};
pub(crate) use self::floor::{FloorArgs, floor};
pub(crate) use self::idle::{IdleArgs, idle};
use crate::address::GatewayAddress;
use crate::crowd::Crowd;
use crate::process::{Process, Reading};
use crate::report::Report;
use crate::token::{TokenArgs, Tokens};

/// The gateway under test.
#[derive(Debug, Args)]
pub(crate) struct GatewayArgs {
    /// Where it listens, for example http://127.0.0.1:8080.
    #[arg(long, value_name = "ADDRESS")]
    gateway: GatewayAddress,
    /// Its process id, if it runs on this machine: adds what it costs.
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    #[command(flatten)]
    token: TokenArgs,
}

/// The two processes of a run, watched.
struct Watch {
    server: Option<Process>,
    own: Process,
}

impl Watch {
    fn new(args: &GatewayArgs) -> Self {
        Self { server: args.server_pid.map(Process::new), own: Process::own() }
    }

    /// The server now; `None` if it is not to be watched.
    fn server(&mut self) -> io::Result<Option<Reading>> {
        self.server.as_mut().map(Process::read).transpose()
    }

    fn own(&mut self) -> io::Result<Reading> {
        self.own.read()
    }
}

/// Brings `count` connections together, each subscribed to its topic, and reports what their arrival cost.
///
/// The first one goes through everything before anything is measured: what a gateway sets up once is not the
/// price of a connection.
fn arrive(
    args: &GatewayArgs,
    count: usize,
    topic: impl Fn(usize) -> String,
    watch: &mut Watch,
    report: &mut Report,
) -> Result<Arrival, Box<dyn Error>> {
    let mut crowd = Crowd::new(args.gateway.clone(), Tokens::new(&args.token))?;
    crowd.open(1)?;
    crowd.subscribe(0..1, &topic)?;
    let first = watch.server()?;
    crowd.open(count)?;
    let opened = watch.server()?;
    crowd.subscribe(1..count, &topic)?;
    let subscribed = watch.server()?;

    let others = (count - 1) as f64;
    report.figure("connections", "connections", count as f64, "");
    report.cpu_per("cpu_per_accept_us", "server CPU per accepted connection", first.zip(opened), others);
    report.cpu_per("cpu_per_subscribe_us", "server CPU per subscription", opened.zip(subscribed), others);
    Ok(Arrival { crowd, first })
}

/// A crowd that is complete.
struct Arrival {
    crowd: Crowd,
    /// The server when the first connection was complete and no other had begun.
    first: Option<Reading>,
}

/// Makes every connection that ended during the run a fault.
fn report_ended(crowd: &Crowd, report: &mut Report) {
    if let Some((index, ended)) = crowd.ended().first() {
        let others = crowd.ended().len() - 1;
        report.fault(format!("connection {index}: {ended} ({others} others ended too)"));
    }
}
