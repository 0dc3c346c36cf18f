"""What goes wrong in a run, and when: all of it drawn from the seed."""

import dataclasses
from collections.abc import Callable
from functools import partial
from random import Random

from tests.simulation.net import Weather
from tests.simulation.node import Node
from tests.simulation.peers import Robot
from tests.simulation.world import World

Fault = Callable[["Nemesis"], None]


class Nemesis:
    """Draws faults of its kinds and undoes each; `heal` undoes what is left, all at once."""

    def __init__(self, world: World, random: Random, kinds: tuple[str, ...]) -> None:
        self.world, self.random, self.kinds = world, random, kinds
        self.is_healed = False
        self._faults = [fault for kind in kinds for fault in FAULTS[kind]]
        self._calm = dataclasses.replace(world.net.weather)

    def strike(self) -> None:
        """One fault."""
        if not self.is_healed and self.world.nodes:
            self.random.choice(self._faults)(self)

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do it then, unless everything has been healed before."""
        world = self.world
        world.outside.at(world.loop.time() + seconds, lambda: None if self.is_healed else act())

    def seconds(self, least: float, most: float) -> float:
        """Some time, more often a short one."""
        return least + (most - least) * self.random.random() ** 2

    def node(self) -> Node:
        return self.random.choice(self.world.nodes)

    def heal(self) -> None:
        """No fault is there any more, and none comes."""
        world = self.world
        self.is_healed = True
        world.note("everything heals")
        world.net.weather = self._calm
        world.net.heal()
        world.redis.process.thaw()
        world.redis.store.refusal = ""
        world.redis.is_loading = False
        world.redis.start()
        for node in world.nodes:
            node.process.thaw()
        while len(world.nodes) < 2:
            world.start_node()


# The link to Redis


def cut_link(nemesis: Nemesis) -> None:
    """A connection of commands or of messages is reset, or at its next command, before or after that is done."""
    end = nemesis.random.choice((":cmd", ":cmd", ":sub"))
    fate = nemesis.random.choice(("now", "before", "after"))
    clients = nemesis.world.redis.named(end)
    if clients:
        client = nemesis.random.choice(clients)
        nemesis.world.note(f"{client.name.decode()} is cut: {fate}")
        if fate == "now":
            client.kill()
        else:
            client.fate = fate


def kill_subscribers(nemesis: Nemesis) -> None:
    nemesis.world.note("CLIENT KILL TYPE pubsub")
    for client in nemesis.world.redis.named(":sub"):
        client.kill()


def forget_scripts(nemesis: Nemesis) -> None:
    nemesis.world.note("SCRIPT FLUSH")
    nemesis.world.redis.scripts.clear()


def storm(nemesis: Nemesis) -> None:
    nemesis.world.note("everything is late")
    nemesis.world.net.weather = Weather(0.001, 0.02, spike=0.2, spike_seconds=0.25, fragment=0.3)
    nemesis.later(nemesis.seconds(0.3, 2.0), lambda: setattr(nemesis.world.net, "weather", nemesis._calm))


# Redis itself


def restart_redis(nemesis: Nemesis) -> None:
    redis, keeps_data = nemesis.world.redis, nemesis.random.random() < 0.5
    nemesis.world.note(f"redis restarts {'with' if keeps_data else 'without'} its data")
    redis.process.thaw()
    redis.stop(keeps_data=keeps_data)
    nemesis.later(nemesis.seconds(0.02, 3.0), redis.start)


def flush(nemesis: Nemesis) -> None:
    nemesis.world.note("FLUSHALL")
    nemesis.world.redis.store.clear()


def freeze_redis(nemesis: Nemesis) -> None:
    seconds = nemesis.seconds(0.1, 8.0)
    nemesis.world.note(f"redis freezes for {seconds:.2f} s")
    nemesis.world.redis.process.freeze()
    nemesis.later(seconds, nemesis.world.redis.process.thaw)


def refuse_writes(nemesis: Nemesis) -> None:
    redis = nemesis.world.redis
    redis.store.refusal = nemesis.random.choice(
        (
            "READONLY You can't write against a read only replica.",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "NOREPLICAS Not enough good replicas to write.",
        )
    )
    nemesis.world.note(redis.store.refusal)
    nemesis.later(nemesis.seconds(0.1, 3.0), lambda: setattr(redis.store, "refusal", ""))


def load_data(nemesis: Nemesis) -> None:
    redis = nemesis.world.redis
    redis.is_loading = True
    nemesis.world.note("LOADING")
    nemesis.later(nemesis.seconds(0.1, 1.5), lambda: setattr(redis, "is_loading", False))


def partition(nemesis: Nemesis) -> None:
    world = nemesis.world
    nodes = list(world.nodes) if nemesis.random.random() < 0.25 else [nemesis.node()]
    ways = nemesis.random.choice(((True, True), (True, False), (False, True)))
    for node in nodes:
        name = node.process.name
        world.note(f"{name} {'✕' if ways[0] else '→'} redis {'✕' if ways[1] else '→'} {name}")
        if ways[0]:
            world.net.cut(name, "redis")
        if ways[1]:
            world.net.cut("redis", name)
    nemesis.later(nemesis.seconds(0.1, 6.0), world.net.heal)


def delete_key(nemesis: Nemesis) -> None:
    """An operator's slip; the agent's own facts come back when their rows are put back."""
    keys = nemesis.world.redis.store.all_keys()
    if keys:
        key = nemesis.random.choice(keys)
        nemesis.world.note(f"DEL {key.decode()}")
        nemesis.world.redis.store.delete(key)


# Workers


def kill_worker(nemesis: Nemesis) -> None:
    world, node = nemesis.world, nemesis.node()
    is_told = nemesis.random.random() < 0.7
    world.note(f"{node.process.name} is killed, its sockets are {'reset' if is_told else 'silent'}")
    world.retire(node)
    node.kill(is_told=is_told)
    nemesis.later(nemesis.seconds(0.05, 1.5), lambda: None if len(world.nodes) > 2 else _start(world))


def _start(world: World) -> None:
    world.start_node()


def freeze_worker(nemesis: Nemesis) -> None:
    _freeze(nemesis, nemesis.seconds(0.02, 9.0))


def freeze_long(nemesis: Nemesis) -> None:
    """Past the lease, and past the deadlines of what was sent before that was over."""
    _freeze(nemesis, 6.0)


def _freeze(nemesis: Nemesis, seconds: float) -> None:
    node = nemesis.node()
    nemesis.world.note(f"{node.process.name} freezes for {seconds:.2f} s")
    node.process.freeze()
    nemesis.later(seconds, node.process.thaw)


def stop_worker(nemesis: Nemesis) -> None:
    """A rolling restart's step: the new one first."""
    world, node = nemesis.world, nemesis.node()
    if node.process.is_frozen:
        return
    world.note(f"{node.process.name} is stopped")
    world.start_node()
    world.retire(node)
    node.stop()


def drain_worker(nemesis: Nemesis) -> None:
    """A rolling restart's step, with time for everybody to leave."""
    world, node = nemesis.world, nemesis.node()
    if node.takes_connections and len(world.nodes) < 4:
        world.note(f"{node.process.name} drains")
        world.start_node()
        world.retire(node)
        node.drain()
        for robot in [robot for robot in world.robots if robot.is_on(node.process.name)]:
            # Conversations end by themselves within the window.
            nemesis.later(nemesis.random.uniform(0.1, 1.5), partial(_replace, world, robot))


def _replace(world: World, robot: Robot) -> None:
    if robot in world.robots:
        world.robots.remove(robot)
        robot.is_over = True
        world.add_robot()


# Peers


def hang_up(nemesis: Nemesis) -> None:
    nemesis.random.choice(nemesis.world.devices).hang_up()


def vanish(nemesis: Nemesis) -> None:
    nemesis.random.choice(nemesis.world.devices).vanish()


def dial_twice(nemesis: Nemesis) -> None:
    """A second socket with the same server_id: the newer one wins."""
    device = nemesis.random.choice(nemesis.world.devices)
    if device.server_id:
        device.dial()


def change_tools(nemesis: Nemesis) -> None:
    nemesis.random.choice(nemesis.world.devices).change_tools()


def robot_leaves(nemesis: Nemesis) -> None:
    world = nemesis.world
    robot = world.robots.pop(nemesis.random.randrange(len(world.robots)))
    robot.leave(is_told=nemesis.random.random() < 0.6)
    world.add_robot()


FAULTS: dict[str, tuple[Fault, ...]] = {
    "links": (cut_link, cut_link, cut_link, kill_subscribers, forget_scripts, storm),
    "redis": (restart_redis, flush, freeze_redis, refuse_writes, load_data, partition, partition, delete_key),
    "workers": (kill_worker, freeze_worker, freeze_worker, stop_worker, drain_worker),
    "drain": (drain_worker,),
    "freezes": (freeze_long,),
    "peers": (hang_up, vanish, dial_twice, dial_twice, change_tools, robot_leaves),
}
