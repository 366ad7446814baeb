"""Load on `ratplus serve`: clients that stay, beside `ratplus bench generate`, and the requests of lm-evaluation-harness.

    python load_server.py generate --ratplus ../../build/ratplus --device cuda --layers 24 --width 2048 --head-dim 128 \
        --vocab 32000 --pattern 16,0,4 dense --json generate.json
    python load_server.py score --ratplus ../../build/ratplus --device cuda --layers 24 --width 2048 --head-dim 128 \
        --vocab 32000 --tokenizer mistral-32000.model --json score.json
    python load_server.py generate --ratplus ../../build/ratplus --clients 8 --prompt 16 --tokens 48      # seconds on a CPU
    python load_server.py score --ratplus ../../build/ratplus --requests 500                              # likewise

Weights are random, unless --model names some. Each pattern has a server of its own, on this machine.

generate: all clients send a prompt of made-up tokens at one moment and take --tokens tokens, in one piece and as a stream. The
share of `bench generate` is the tokens/s of all answers, from the first request to the last answer, prompts' time included, over those of its steps at as many sequences (mean of
--lengths lengths between a sequence's first and last).

score: made-up prompts, as many and as long as those of lm-evaluation-harness's six tasks (TASKS), sent as it sends them: longest
first, 16 a request, 8 requests at a time. A text is misplaced where a token has another name than before.

Where an answer is lost, short or misplaced, or the server keeps a sequence or does not end in order, the status is 1.
"""

import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from parameter_shapes import parameter_shapes

# Zero-shot requests for log-likelihoods, and quantiles of their lengths (context and continuation, in tokens of Mistral's
# tokenizer of 32000): of whole sets, without a begin token.
SHARES = (0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
TASKS = {
    "piqa": (3676, (6, 8, 11, 13, 18, 22, 26, 30, 35, 41, 50, 68, 90, 140, 265)),
    "arc_easy": (9504, (7, 11, 14, 16, 18, 21, 24, 27, 31, 36, 42, 54, 65, 86, 192)),
    "arc_challenge": (4688, (7, 11, 15, 18, 21, 24, 28, 32, 38, 44, 51, 62, 73, 104, 204)),
    "winogrande": (2534, (16, 16, 18, 19, 20, 21, 22, 23, 24, 26, 27, 30, 32, 35, 44)),
    "lambada_openai": (5153, (61, 65, 69, 71, 75, 77, 80, 83, 86, 90, 94, 102, 109, 127, 230)),
    "hellaswag": (40168, (18, 24, 32, 38, 48, 65, 84, 93, 100, 106, 113, 121, 127, 135, 155)),
}
ALL_REQUESTS = sum(count for count, _ in TASKS.values())

REQUEST_SECONDS = 600
START_SECONDS = 300
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer none"}


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurement", choices=["generate", "score"])
    parser.add_argument("--ratplus", type=Path, required=True, help="the ratplus program")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the server on a CPU; default: all")
    parser.add_argument("--model", type=Path, help="weights; default: random ones of the sizes that follow")
    for name, value in dict(layers=2, width=64, head_dim=32, vocab=512).items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=value, help=f"default {value}")
    parser.add_argument("--tokenizer", type=Path, help="the server's; default: none, or the model's")
    parser.add_argument("--pattern", nargs="+", default=["dense"], help="one or more; default: dense")
    parser.add_argument("--length", type=int, help="of the server's sequences; default: the longest request's")
    parser.add_argument("--json", type=Path, help="write all results here")
    group = parser.add_argument_group("generate")
    group.add_argument("--clients", type=int, default=200, help="default 200")
    group.add_argument("--prompt", type=int, default=64, help="tokens of a prompt; default 64")
    group.add_argument("--tokens", type=int, default=1024, help="of an answer; default 1024")
    group.add_argument("--processes", type=int, default=min(16, os.cpu_count()),
                       help="of the clients; default: one a processor, up to 16")
    group.add_argument("--lengths", type=int, default=3, help="that bench generate times; default 3; 0 leaves it out")
    group.add_argument("--steps", type=int, default=16, help="of bench generate; default 16")
    group = parser.add_argument_group("score")
    group.add_argument("--requests", type=int, default=ALL_REQUESTS, help=f"prompts in all; default {ALL_REQUESTS}, those of the tasks")
    group.add_argument("--batch", type=int, default=16, help="prompts in one HTTP request; default 16")
    group.add_argument("--concurrent", type=int, default=8, help="HTTP requests at a time; default 8")
    options = parser.parse_args()
    least = dict(clients=1, prompt=1, tokens=1, processes=1, lengths=0, steps=1, requests=1, batch=1, concurrent=1)
    for name, value in least.items():
        if getattr(options, name) < value:
            parser.error(f"--{name} {getattr(options, name)} is below {value}")
    options.processes = min(options.processes, options.clients)
    return options


# --- The model -----------------------------------------------------------------------------------------------------------------


def write_model(options, file):
    """Random weights as safetensors, bfloat16; norms have ones."""
    model = dict(layers=options.layers, width=options.width, head_dim=options.head_dim, vocab_size=options.vocab, recurrence=True,
                 rope_base=10000.0, norm_eps=1e-6, init_std=0.02)
    shapes = parameter_shapes(SimpleNamespace(**model))
    about = dict(model=model, step=0, tokens=0, tokenizer="", job="")
    header, end = {"__metadata__": {"format": "pt", "ratplus": json.dumps(about)}}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = np.random.default_rng(1)
    with open(file, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            count = int(np.prod(shape))
            # Billions of normal numbers take minutes: a prime number of them, repeated, gives rows that differ, too.
            normal = generator.standard_normal(1_000_003, dtype=np.float32)
            values = np.resize(normal * np.float32(0.02), count) if len(shape) > 1 else np.ones(count, np.float32)
            out.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())


def vocabulary_of(options):
    """Tokens that prompts are drawn from."""
    if options.model is None or options.model.suffix != ".safetensors":
        return options.vocab
    with open(options.model, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    return header["embedding.wte.weight"]["shape"][0]


# --- The server ----------------------------------------------------------------------------------------------------------------


class Server:
    """A server that runs; its log is in `directory`."""

    def __init__(self, options, model, pattern, length, slots, directory):
        command = [options.ratplus, "serve", model, "--pattern", pattern, "--length", length, "--longer", "--port", 0, "--quiet",
                   "--device", options.device]
        if options.tokenizer:
            command += ["--tokenizer", options.tokenizer]
        if slots:
            command += ["--slots", slots]
        if options.device == "cpu":
            command += ["--threads", options.threads]
        self.log = Path(directory) / "server.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=log, text=True)
        killer = threading.Timer(START_SECONDS, self.process.kill)
        killer.start()
        first = self.process.stdout.readline()
        killer.cancel()
        if " serves " not in first:
            self.process.kill()
            sys.exit(f"{self.process.args[0]} serve did not start:\n{self.log.read_text()[-2000:]}")
        self.about = f"{first.strip()}; {self.process.stdout.readline().strip()}"
        host, port = first.split()[0].removeprefix("http://").rsplit(":", 1)
        self.address = (host, int(port))

    def connect(self):
        connection = http.client.HTTPConnection(*self.address, timeout=REQUEST_SECONDS)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def kept(self):
        """Sequences that run or wait, a second after the last answer or sooner: the gauge follows answers."""
        until = time.monotonic() + 1
        while (now := self.sequences()) and time.monotonic() < until:
            time.sleep(0.02)
        return now

    def sequences(self):
        connection = self.connect()
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return int(lines["ratplus_sequences_running"]) + int(lines["ratplus_sequences_waiting"])

    def end(self):
        """The status of its end; not 0: it is worth a look at the log."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextlib.contextmanager
def serving(options, model, pattern, length, slots, failures):
    """A server for the time of the block; what it keeps or how it ends may be a failure."""
    with tempfile.TemporaryDirectory() as directory:
        server = Server(options, model, pattern, length, slots, directory)
        try:
            print(f"\n{pattern}: {server.about}", flush=True)
            yield server
            try:
                if kept := server.kept():
                    failures.append(f"{pattern}: the server keeps {kept} sequences that nobody waits for")
            except OSError as error:
                failures.append(f"{pattern}: the server does not answer: {error}")
        finally:
            if (status := server.end()) != 0:
                failures.append(f"{pattern}: the server ended with status {status}: {server.log.read_text()[-1000:]}")


def post(connection, body):
    connection.request("POST", "/v1/completions", json.dumps(body), HEADERS)
    return connection.getresponse()


def made_up_tokens(seed, count, vocabulary):
    """Without the first three, which most tokenizers have for other things than text."""
    return random.Random(seed).choices(range(min(3, vocabulary - 1), vocabulary), k=count)


def in_processes(count, work):
    """The lists of work(number, ready), joined; ready() returns in all processes at one moment."""
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(count), context.Queue()

    def run(number):
        results = []
        try:
            results = work(number, lambda: barrier.wait(REQUEST_SECONDS))
        except Exception as error:
            barrier.abort()
            results = [dict(error=f"{type(error).__name__}: {error}")]
        queue.put(results)

    processes = [context.Process(target=run, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    results = [result for _ in processes for result in queue.get()]
    for process in processes:
        process.join()
    return results


def quantile(values, share):
    return float(np.quantile(values, share)) if values else None


# --- generate ------------------------------------------------------------------------------------------------------------------


def completion_tokens(text):
    """The usage at the end of an answer or of a stream, bytes; None: there is none."""
    _, found, rest = text.rpartition(b'"completion_tokens":')
    return int(rest.split(b",")[0].split(b"}")[0]) if found else None


def take_answer(connection, body):
    """One request: when it began, its first byte came (of a stream) and it ended, in seconds of one clock, and its tokens."""
    began, first = time.perf_counter(), None
    try:
        response = post(connection, body)
        if response.status != 200:
            return dict(error=f"status {response.status}: {response.read(300).decode(errors='replace')}")
        if not body["stream"]:
            end = response.read()
        else:
            end = b""
            while piece := response.read1(1 << 16):
                first = first or time.perf_counter()
                end = (end + piece)[-1000:]
            if not end.endswith(b"data: [DONE]\n\n"):
                return dict(error=f"the stream ends with {end[-300:]}")
        return dict(began=began, first=first, ended=time.perf_counter(), tokens=completion_tokens(end))
    except (OSError, http.client.HTTPException) as error:
        return dict(error=f"{type(error).__name__}: {error}")


def clients_at_once(options, server, vocabulary, tokens, stream):
    """One result a client."""

    def work(number, ready):
        numbers = range(number, options.clients, options.processes)
        connections = [server.connect() for _ in numbers]
        bodies = []
        for client in numbers:
            prompt = made_up_tokens(client, options.prompt, vocabulary)
            body = dict(prompt=prompt, max_tokens=tokens, temperature=0, ignore_eos=True, stream=stream)
            if stream:
                body["stream_options"] = dict(include_usage=True)
            bodies.append(body)
        results = []
        threads = [
            threading.Thread(target=lambda connection=connection, body=body: results.append(take_answer(connection, body)))
            for connection, body in zip(connections, bodies)
        ]
        ready()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    return in_processes(options.processes, work)


def measure_clients(options, server, vocabulary, stream):
    results = clients_at_once(options, server, vocabulary, options.tokens, stream)
    answered = [result for result in results if "error" not in result]
    row = dict(form="stream" if stream else "whole", clients=options.clients, prompt=options.prompt, tokens=options.tokens,
               lost=options.clients - len(answered), short=sum(result["tokens"] != options.tokens for result in answered),
               errors=sorted({result["error"] for result in results if "error" in result})[:3])
    if answered:
        ended = max(result["ended"] for result in answered)
        tokens = sum(result["tokens"] or 0 for result in answered)
        row["seconds"] = ended - min(result["began"] for result in answered)
        row["tokens_per_second"] = tokens / row["seconds"]
        if stream:
            firsts = [result["first"] - result["began"] for result in answered]
            row["first_token_p50"], row["first_token_p99"] = quantile(firsts, 0.5), quantile(firsts, 0.99)
            last_first = max(result["first"] for result in answered)
            if ended > last_first:
                # Most tokens come when all have begun; those before are counted too, but for the first of each.
                row["after_first_tokens_per_second"] = (tokens - len(answered)) / (ended - last_first)
    return row


def bench_generate(options, model, pattern, directory):
    """Tokens/s of steps at as many sequences, by the mean over lengths that a sequence passes, and the seconds of each."""
    lengths = [options.prompt + max(1, round(options.tokens * (i + 0.5) / options.lengths)) for i in range(options.lengths)]
    steps = max(1, min(options.steps, min(lengths) - 1))
    file = Path(directory) / "bench.json"
    command = [options.ratplus, "bench", "generate", model, "--pattern", pattern, "--lengths", *lengths, "--batches", options.clients,
               "--steps", steps, "--device", options.device, "--json", file]
    if options.device == "cpu":
        command += ["--threads", options.threads]
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"bench generate failed:\n{done.stdout[-2000:]}")
    seconds = {row["length"]: row["seconds"] for row in json.loads(file.read_text())["times"]
               if row["kind"] == "step" and row["sequences"] == options.clients}
    if len(seconds) < len(set(lengths)):
        sys.exit(f"bench generate timed no {options.clients} sequences; fewer --clients or --tokens may fit:\n{done.stdout[-2000:]}")
    mean = sum(seconds.values()) / len(seconds)
    return dict(tokens_per_second=options.clients / mean, step_seconds={str(length): value for length, value in seconds.items()})


def milliseconds(value):
    return "-" if value is None else f"{1e3 * value:.1f} ms"


def print_clients(row, bench):
    text = f"  {row['form']:7} lost {row['lost']}, short {row['short']}"
    if "seconds" in row:
        text += f", {row['seconds']:.2f} s, {row['tokens_per_second']:.0f} tokens/s"
        if bench:
            row["share_of_bench"] = row["tokens_per_second"] / bench["tokens_per_second"]
            text += f", {row['share_of_bench']:.1%} of bench generate"
        if row["form"] == "stream":
            text += f"; to the first token p50 {milliseconds(row['first_token_p50'])}, p99 {milliseconds(row['first_token_p99'])}"
        if rate := row.get("after_first_tokens_per_second"):
            text += f"; after the last first token {rate:.0f} tokens/s"
    print(text, flush=True)
    for error in row["errors"]:
        print(f"    {error}", flush=True)


def generate(options, model, pattern, failures):
    vocabulary = vocabulary_of(options)
    bench = None
    if options.lengths:
        with tempfile.TemporaryDirectory() as directory:
            bench = bench_generate(options, model, pattern, directory)
        steps = ", ".join(f"{length}: {milliseconds(value)}" for length, value in bench["step_seconds"].items())
        print(f"\n{pattern}: bench generate, {options.clients} sequences: {bench['tokens_per_second']:.0f} tokens/s; "
              f"a step by length: {steps}", flush=True)
    rows = []
    length = options.length or options.prompt + options.tokens
    with serving(options, model, pattern, length, options.clients, failures) as server:
        clients_at_once(options, server, vocabulary, min(16, options.tokens), stream=False)  # first touches of memory
        for stream in (False, True):
            row = measure_clients(options, server, vocabulary, stream)
            print_clients(row, bench)
            rows.append(row)
            if row["lost"] or row["short"]:
                failures.append(f"{pattern}, {row['form']}: lost {row['lost']}, short {row['short']}")
    return dict(pattern=pattern, bench=bench, clients=rows)


# --- score ---------------------------------------------------------------------------------------------------------------------


def lengths_of_tasks(requests):
    """Lengths in tokens, longest first: of each task its share of `requests`, spread as its quantiles say."""
    lengths = []
    for count, quantiles in TASKS.values():
        part = count if requests == ALL_REQUESTS else max(1, round(count * requests / ALL_REQUESTS))
        lengths += [int(round(value)) for value in np.interp((np.arange(part) + 0.5) / part, SHARES, quantiles)]
    return sorted(lengths, reverse=True)


class Names:
    """What a token was called, by its number: a text in another's place has tokens of other names."""

    def __init__(self):
        self.names = {}

    def agree(self, tokens, names):
        return all(self.names.setdefault(token, name) == name for token, name in zip(tokens, names))


def check_answer(answer, prompts, names):
    """Numbers of prompts without their log-probabilities, and with another prompt's."""
    choices = {choice["index"]: choice for choice in answer["choices"]}
    lost = misplaced = 0
    for index, prompt in enumerate(prompts):
        scores = choices[index]["logprobs"] if index in choices else None
        # One more than the prompt has: the generated token, which the harness drops.
        whole = scores and all(len(scores[field]) == len(prompt) + 1 for field in ("tokens", "token_logprobs", "top_logprobs"))
        values = scores["token_logprobs"] if whole else []
        if not whole or values[0] is not None or not all(value is not None and -9999 <= value <= 0 for value in values[1:]):
            lost += 1
        elif not names.agree(prompt, scores["tokens"]):
            misplaced += 1
    return lost, misplaced + len(answer["choices"]) - len(choices) + sum(index >= len(prompts) for index in choices)


def verify():
    """Lost and misplaced texts must be found."""

    def choice(index, tokens):
        values = [None] + [-1.0] * len(tokens)
        names = [f"token {token}" for token in tokens] + ["next"]
        return dict(index=index, logprobs=dict(tokens=names, token_logprobs=values, top_logprobs=values))

    prompts = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    short = choice(2, prompts[2])
    short["logprobs"]["token_logprobs"].pop()
    cases = {
        "all": ([choice(i, prompt) for i, prompt in enumerate(prompts)], (0, 0)),
        "one too few": ([choice(0, prompts[0]), choice(2, prompts[2])], (1, 0)),
        "two exchanged": ([choice(0, prompts[1]), choice(1, prompts[0]), choice(2, prompts[2])], (0, 2)),
        "one twice": ([choice(0, prompts[0]), choice(1, prompts[1]), choice(1, prompts[1])], (1, 1)),
        "one value too few": ([choice(0, prompts[0]), choice(1, prompts[1]), short], (1, 0)),
    }
    for name, (choices, expected) in cases.items():
        names = Names()
        names.agree(sum(prompts, []), [f"token {token}" for token in sum(prompts, [])])
        if (found := check_answer(dict(choices=choices), prompts, names)) != expected:
            sys.exit(f"the check of answers is wrong: {name}: lost and misplaced {found}")


def score_all(options, server, vocabulary, lengths):
    """One result an HTTP request. As the harness: the next batch goes out when one of those under way has come back."""
    batches = [range(i, min(i + options.batch, len(lengths))) for i in range(0, len(lengths), options.batch)]
    workers = min(options.concurrent, len(batches))
    following = multiprocessing.get_context("fork").Value("q", 0)

    def take():
        with following.get_lock():
            following.value += 1
            return following.value - 1

    def work(number, ready):
        results, names, connection = [], Names(), server.connect()
        ready()
        while (at := take()) < len(batches):
            prompts = [made_up_tokens(i, lengths[i], vocabulary) for i in batches[at]]
            began = time.perf_counter()
            body = dict(prompt=prompts, temperature=0, max_tokens=1, logprobs=1, seed=1234, echo=True)
            result = dict(began=began, prompts=len(prompts), bytes=0, lost=len(prompts), misplaced=0)
            try:
                response = post(connection, body)
                text = response.read()
                result["bytes"] = len(text)
                result["ended"] = time.perf_counter()
                if response.status == 200:
                    result["lost"], result["misplaced"] = check_answer(json.loads(text), prompts, names)
                else:
                    result["error"] = f"status {response.status}: {text[:300].decode(errors='replace')}"
            except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError) as error:
                result["error"] = f"{type(error).__name__}: {error}"
                result.setdefault("ended", time.perf_counter())
            results.append(result)
            if "error" in result:
                try:
                    connection = server.connect()
                except OSError:
                    break  # the server is gone
        return results

    return in_processes(workers, work)


def score(options, model, pattern, failures):
    vocabulary = vocabulary_of(options)
    lengths = lengths_of_tasks(options.requests)
    with serving(options, model, pattern, options.length or lengths[0] + 1, 0, failures) as server:
        score_all(options, server, vocabulary, lengths[: options.batch])  # first touches of memory
        results = score_all(options, server, vocabulary, lengths)
    timed = [result for result in results if "began" in result]
    sent = sum(result["prompts"] for result in timed)
    lost = len(lengths) - sent + sum(result["lost"] for result in timed)
    row = dict(pattern=pattern, requests=len(lengths), tokens=sum(lengths), batch=options.batch, concurrent=options.concurrent,
               lost=lost, misplaced=sum(result["misplaced"] for result in timed),
               errors=sorted({result["error"] for result in results if "error" in result})[:3])
    text = (f"  {len(lengths)} prompts, {row['tokens']} tokens, {options.batch} a request, {options.concurrent} requests at a time: "
            f"lost {lost}, misplaced {row['misplaced']}")
    if timed:
        row["seconds"] = max(result["ended"] for result in timed) - min(result["began"] for result in timed)
        row["requests_per_second"] = sent / row["seconds"]
        tokens_per_second = row["tokens"] / row["seconds"]
        row["response_bytes"] = sum(result["bytes"] for result in timed)
        times = [result["ended"] - result["began"] for result in timed]
        row["response_p50"], row["response_p99"] = quantile(times, 0.5), quantile(times, 0.99)
        text += (f", {row['seconds']:.2f} s, {row['requests_per_second']:.0f} prompts/s, {tokens_per_second:.0f} tokens/s; "
                 f"to a response p50 {milliseconds(row['response_p50'])}, p99 {milliseconds(row['response_p99'])}")
        if len(lengths) < ALL_REQUESTS:
            text += f"; all {ALL_REQUESTS} at this rate: {ALL_REQUESTS / row['requests_per_second']:.0f} s"
    print(text, flush=True)
    for error in row["errors"]:
        print(f"    {error}", flush=True)
    if row["lost"] or row["misplaced"]:
        failures.append(f"{pattern}: lost {row['lost']}, misplaced {row['misplaced']}")
    return row


def main():
    options = parse_options()
    verify()
    failures = []
    with tempfile.TemporaryDirectory() as directory:
        model = options.model
        if model is None:
            model = Path(directory) / "model.safetensors"
            write_model(options, model)
            print(f"random weights: {options.layers} layers, width {options.width}, head_dim {options.head_dim}, "
                  f"vocabulary {options.vocab}, {model.stat().st_size / 1e6:.1f} MB", flush=True)
        measure = generate if options.measurement == "generate" else score
        rows = [measure(options, model, pattern, failures) for pattern in options.pattern]
    if options.json:
        results = dict(measurement=options.measurement, device=options.device, failures=failures, rows=rows)
        options.json.write_text(json.dumps(results, indent=1))
    for failure in failures:
        print(f"failure: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
