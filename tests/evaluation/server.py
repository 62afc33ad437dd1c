"""A small OpenAI-compatible server over transformers' own `generate`, with faults on demand."""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


class Server(ThreadingHTTPServer):
    """`faults`: answers to give first, e.g. [429, 500, "garbage", "hang", "close"]; `seen` counts requests."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, model_dir, faults=(), always=None, context=512):
        super().__init__(("127.0.0.1", 0), Handler)
        self.tokenizer = AutoTokenizer.from_pretrained(model_dir)
        self.model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
        self.faults, self.always, self.context = list(faults), always, context
        self.lock = threading.Lock()
        self.seen = Counter()
        self.most_at_once = self._at_once = 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def enter(self, change):
        with self.lock:
            self._at_once += change
            self.most_at_once = max(self.most_at_once, self._at_once)

    def fault(self):
        with self.lock:
            return self.faults.pop(0) if self.faults else self.always


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def reply(self, status, body, headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.reply(200, {"data": [{"id": "pico", "max_model_len": self.server.context}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        fault = server.fault()
        server.seen[fault or 200] += 1
        server.enter(1)
        try:
            answer = None if fault else self.answer(body)
        finally:
            server.enter(-1)
        if fault == "garbage":
            self.reply(200, b"<html>gateway says hello")
        elif fault == "empty":
            self.reply(200, {"choices": []})
        elif fault == "abort":  # a beginning that must not pass for a completion
            self.reply(200, {"choices": [{"text": "4", "finish_reason": "abort"}], "usage": {"completion_tokens": 1}})
        elif fault == "odd":
            self.reply(200, {"choices": ["x"]})
        elif fault == "hang":
            time.sleep(3)
        elif fault == "close":
            self.connection.close()
        elif fault:
            self.reply(fault, {"error": "no"}, [("Retry-After", "0.01")])
        else:
            self.reply(200, answer)

    def answer(self, body):
        tokenizer, model = self.server.tokenizer, self.server.model
        if body.get("echo"):
            return self.echo(body["prompt"])
        chat = "messages" in body
        text = (
            tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, tokenize=False)
            if chat
            else body["prompt"]
        )
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=body.get("add_special_tokens", not chat))
        with torch.no_grad(), self.server.lock:
            out = model.generate(
                ids["input_ids"],
                max_new_tokens=body["max_tokens"],
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
                pad_token_id=1,
            )
        new = out.sequences[0, ids["input_ids"].shape[1] :].tolist()
        logprobs = [float(torch.log_softmax(step[0], -1)[token]) for step, token in zip(out.logits, new, strict=True)]
        stopped = new[-1] == tokenizer.eos_token_id
        completion = tokenizer.decode(new[:-1] if stopped else new)
        choice = {"finish_reason": "stop" if stopped else "length"}
        if chat:
            choice["message"] = {"content": completion}
            choice["logprobs"] = {"content": [{"logprob": value} for value in logprobs]}
        else:
            choice |= {"text": completion, "logprobs": {"token_logprobs": logprobs}}
        return {"choices": [choice], "usage": {"completion_tokens": len(new)}}

    def echo(self, ids):
        """The log-probabilities of prompt and one new token, as vLLM answers `echo` with `logprobs`."""
        with torch.no_grad(), self.server.lock:
            chances = torch.log_softmax(self.server.model(torch.tensor([ids])).logits[0], -1)
        new = int(chances[-1].argmax())
        best = [None, *chances.max(-1).values.tolist()]
        own = [None, *(float(chances[i, token]) for i, token in enumerate([*ids[1:], new]))]
        words = [f"token_id:{token}" for token in [*ids, new]]
        top = [None, *({"best": value} for value in best[1:])]
        return {"choices": [{"logprobs": {"tokens": words, "token_logprobs": own, "top_logprobs": top}}]}
