#!/usr/bin/env python3
"""Publishes this machine's load to the topic host.load, five times a second: host-load.py [REDIS_URL]"""
import contextlib, json, os, sys, time
import redis

bus = redis.Redis.from_url(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"))

def ticks():  # spent since boot for programs, in the kernel, and idle: the first line of /proc/stat, see proc(5)
    user, nice, system, idle, iowait, irq, softirq, *_ = map(int, open("/proc/stat").readline().split()[1:])
    return user + nice, system + irq + softirq, idle + iowait

now = ticks()
while time.sleep(0.2) is None:
    then, now = now, ticks()
    user, kernel, idle = (after - before for before, after in zip(then, now))
    percent = 100 / max(user + kernel + idle, 1)
    kib = {line.split(":")[0]: int(line.split()[1]) for line in open("/proc/meminfo")}
    minute, _, _, running, _ = open("/proc/loadavg").read().split()
    with contextlib.suppress(redis.ConnectionError):  # while Redis is away a reading is lost; the next one is worth more
        bus.publish("host.load", json.dumps({
            "cpu": {"user_percent": round(user * percent, 1), "kernel_percent": round(kernel * percent, 1)},
            "memory": {"used_mib": (kib["MemTotal"] - kib["MemAvailable"]) // 1024},
            "load": {"1_minute": float(minute), "running": int(running.split("/")[0])},
        }))
