//! What would it cost with no gateway at all?
//!
//! One thread writes the same frame to every socket, again and again; another reads it there as a client would.
//! The writing thread's CPU time per frame is what the kernel asks for a delivery, and no gateway that calls
//! `write(2)` can be cheaper.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use causeway_protocol::frame::{FrameLimits, FrameReader, Message, Received, Role};
use causeway_protocol::{Publication, Topic};
use clap::Args;
use mio::{Events, Interest, Poll, Token};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::clock::{Moment, thread_cpu};
use crate::expect::Expectation;
use crate::report::{Report, figure};
use crate::stamp::{PAYLOAD_BYTES_MIN, Stamp, Stamped};

/// One that a gateway delivers would be as long.
const TOPIC: &str = "load.fanout";
/// The scenario's name.
pub(crate) const NAME: &str = "floor";
const SCRATCH_BYTES: usize = 256 * 1024;

/// The arguments of `floor`.
#[derive(Debug, Args)]
pub(crate) struct FloorArgs {
    /// How many sockets are written to. Both ends are ours: each takes two file descriptors.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    sockets: u32,
    /// How many frames go into one write.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    frames_per_write: u32,
    /// Payload of the message in each frame, at least 88 bytes.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(PAYLOAD_BYTES_MIN as i64..=1024))]
    payload_bytes: u32,
    /// How long to write.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// The CPU that the writing thread stays on.
    #[arg(long, value_name = "CPU")]
    writer_cpu: Option<usize>,
    /// The CPU that the reading thread stays on.
    #[arg(long, value_name = "CPU")]
    reader_cpu: Option<usize>,
}

/// Writes for the given time and reports what a frame cost.
pub(crate) fn floor(args: &FloorArgs, expectations: Vec<Expectation>) -> Result<Report, Box<dyn Error>> {
    let (mut near, far) = socket_pairs(args.sockets as usize)?;
    let stamp = Stamp::new(Stamp::new_run(), args.payload_bytes as usize);
    let payload = stamp.payload(Stamped { topic: 0, seq: 0, at: Moment::now() });
    let frame = Publication::new(Topic::parse(TOPIC)?, payload).frame().to_vec();
    let bytes = frame.repeat(args.frames_per_write as usize);
    let (tell_round, round_read) = channel();
    let (reader_cpu, round_frames) = (args.reader_cpu, args.frames_per_write as usize * near.len());
    thread::Builder::new().name("reader".to_owned()).spawn(move || {
        // When the reader ends, so does the channel, and with it the writer.
        pin(reader_cpu).and_then(|()| read_rounds(far, round_frames, &stamp, &tell_round))
    })?;
    pin(args.writer_cpu)?;
    let written = write_rounds(&mut near, &bytes, Duration::from_secs(args.seconds), &round_read)?;

    let mut report = Report::new(NAME, expectations);
    let per_write = written.cpu.as_secs_f64() * 1e6 / written.writes as f64;
    report.figure(&figure::SOCKETS, args.sockets.into());
    report.figure(&figure::FRAMES_PER_WRITE, args.frames_per_write.into());
    report.figure(&figure::FRAME_BYTES, frame.len() as f64);
    report.figure(&figure::CPU_PER_WRITE, per_write);
    report.figure(&figure::CPU_PER_FRAME, per_write / f64::from(args.frames_per_write));
    Ok(report)
}

/// `count` connected pairs: the ends to write to, and the ends to read from.
fn socket_pairs(count: usize) -> io::Result<(Vec<TcpStream>, Vec<TcpStream>)> {
    let listener = TcpListener::bind("127.77.255.1:0")?;
    let (mut near, mut far) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        far.push(TcpStream::connect(listener.local_addr()?)?);
        let (accepted, _) = listener.accept()?;
        accepted.set_nodelay(true)?;
        near.push(accepted);
    }
    Ok((near, far))
}

fn pin(cpu: Option<usize>) -> io::Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    Ok(sched_setaffinity(None, &cpus)?)
}

struct Written {
    writes: u64,
    cpu: Duration,
}

/// Writes `bytes` to every socket, waits until all of it is read, and begins again until `duration` is over.
fn write_rounds(
    sockets: &mut [TcpStream],
    bytes: &[u8],
    duration: Duration,
    round_read: &Receiver<()>,
) -> Result<Written, Box<dyn Error>> {
    let end = Instant::now() + duration;
    let (mut writes, cpu_before) = (0, thread_cpu());
    while Instant::now() < end {
        for socket in &mut *sockets {
            socket.write_all(bytes)?;
        }
        writes += sockets.len() as u64;
        round_read.recv()?;
    }
    Ok(Written { writes, cpu: thread_cpu() - cpu_before })
}

/// Reads from every socket, and tells whenever a round of `round_frames` is complete; until nobody listens.
///
/// It reads frames as a subscriber of the load tester does, and it never sleeps: the writer would pay for waking it,
/// more the quicker it reads, and that is no part of a write.
fn read_rounds(
    ends: Vec<TcpStream>,
    round_frames: usize,
    stamp: &Stamp,
    tell: &Sender<()>,
) -> io::Result<()> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1024));
    let mut ends = ends.into_iter().map(FarEnd::new).collect::<io::Result<Vec<_>>>()?;
    for (index, end) in ends.iter_mut().enumerate() {
        poll.registry().register(&mut end.stream, Token(index), Interest::READABLE)?;
    }
    let (mut scratch, mut unread) = (vec![0; SCRATCH_BYTES], round_frames);
    loop {
        poll.poll(&mut events, Some(Duration::ZERO))?;
        for event in &events {
            unread -= ends[event.token().0].read(&mut scratch, stamp)?;
            if unread == 0 {
                unread = round_frames;
                // A writer that has gone has what it wanted.
                let Ok(()) = tell.send(()) else { return Ok(()) };
            }
        }
    }
}

/// The end of a pair that is read from.
struct FarEnd {
    stream: mio::net::TcpStream,
    reader: FrameReader,
}

impl FarEnd {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream: mio::net::TcpStream::from_std(stream), reader: FrameReader::new(Role::Client) })
    }

    /// How many deliveries were waiting. One read takes them all: a round is smaller than the scratch buffer.
    fn read(&mut self, scratch: &mut [u8], stamp: &Stamp) -> io::Result<usize> {
        let len = match self.stream.read(scratch) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            read => read?,
        };
        let (mut bytes, mut deliveries) = (&mut scratch[..len], 0);
        while let Some(Received::Plain(message)) =
            self.reader.next(&mut bytes, &FrameLimits::default()).map_err(io::Error::other)?
        {
            deliveries += usize::from(matches!(message, Message::Text(text) if stamp.read(&text).is_some()));
        }
        Ok(deliveries)
    }
}
