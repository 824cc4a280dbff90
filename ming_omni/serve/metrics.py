"""What the engine has counted -> Prometheus text."""

from __future__ import annotations

from ming_omni.engine.engine import FIRST_TOKEN_BUCKETS, Engine


def prometheus(engine: Engine) -> str:
    counts, scheduler, pages = engine.counts, engine.scheduler, engine.pages
    num_held = pages.num_pages - len(pages.idle)
    values = [
        ("running_requests", "gauge", "Requests being computed.", len(scheduler.running)),
        ("waiting_requests", "gauge", "Requests in line.", len(scheduler.waiting)),
        ("cache_pages", "gauge", "Pages of the KV cache.", pages.num_pages),
        ("cache_pages_held", "gauge", "Pages that running requests hold.", num_held),
        ("cache_pages_shareable", "gauge", "Pages that a new request may find its prompt in.", len(pages.page_of)),
        ("prompt_tokens_total", "counter", "Prompt tokens of answered requests.", counts.prompt_tokens),
        ("reused_tokens_total", "counter", "Tokens found in the cache.", scheduler.num_reused_tokens),
        ("answer_tokens_total", "counter", "Tokens written.", counts.answer_tokens),
        ("preempted_total", "counter", "Requests that made way for older ones.", scheduler.num_preempted),
        ("refused_total", "counter", "Requests refused because the line was full.", scheduler.num_refused),
        ("steps_total", "counter", "Steps of the model.", counts.steps),
        ("step_seconds_total", "counter", "Time in these steps.", round(counts.step_seconds, 6)),
    ]
    lines = []
    for name, kind, help_, value in values:
        lines += [f"# HELP ming_{name} {help_}", f"# TYPE ming_{name} {kind}", f"ming_{name} {value}"]
    lines += ["# HELP ming_requests_total Requests by how they ended.", "# TYPE ming_requests_total counter"]
    lines += [f'ming_requests_total{{end="{end}"}} {n}' for end, n in sorted(counts.finished.copy().items())]
    return "\n".join(lines + _first_token(engine)) + "\n"


def _first_token(engine: Engine) -> list[str]:
    name, total = "ming_first_token_seconds", 0
    lines = [f"# HELP {name} From a request's arrival to its first token.", f"# TYPE {name} histogram"]
    for bucket in FIRST_TOKEN_BUCKETS:
        total += engine.counts.first_token_seconds[bucket]
        lines.append(f'{name}_bucket{{le="{"+Inf" if bucket == float("inf") else bucket}"}} {total}')
    return [*lines, f"{name}_sum {engine.counts.first_token_total_seconds:.6f}", f"{name}_count {total}"]
