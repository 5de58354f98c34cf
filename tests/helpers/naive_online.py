"""The obvious way to do what engine/motion_graph/online.py does fast: a table over all states, in plain Python."""

import math

import numpy as np

from engine.motion_graph.search import node_jitter
from tests.helpers.naive_search import edges_of

SAME_MOMENT_STEPS, NEAR_NODES = 4, 1


class NaiveOnline:
    """Everything a decision is made of; `shown` is the whole path so far."""

    def __init__(self, graph, motion, rest, search, costs, variety, options):
        self.graph, self.motion, self.rest = graph, motion, [float(r) for r in rest]
        self.search, self.costs, self.variety, self.options = search, costs, variety, options
        self.clip = np.searchsorted(graph.clip_start, np.arange(graph.n_nodes), side="right")
        self.out = {
            i: [(j, cost + (options.hesitation if is_cut else 0), is_cut) for j, cost, is_cut in edges]
            for i, edges in edges_of(graph, search).items()
        }
        self.depth = search.min_dwell
        self.values = [self.value(silent) for silent in (False, True)]

    def mean(self, n, speaking):
        unlike = self.costs.similarity_weight * (2 if self.motion.high.shape[1] else 1)
        level, away = float(self.motion.level[n]), self.rest[n]
        speech = self.costs.level_weight * ((level - 0.5) ** 2 + 1 / 12) + self.costs.listless_weight * (1 - away)
        silence = self.costs.level_weight * level**2 + self.costs.idle_weight * away
        return unlike + speaking * speech + (1 - speaking) * silence

    def leaving(self, n, silent):
        return silent * self.options.idle_cut * (1 - self.rest[n])

    def successors(self, n, dwell, silent):
        for j, cost, is_cut in self.out[n]:
            if not is_cut:
                yield j, min(dwell + 1, self.depth), cost
            elif dwell == self.depth:
                yield j, 1, cost + self.leaving(n, silent)

    def value(self, silent):
        nodes, dwells = range(self.graph.n_nodes), range(1, self.depth + 1)
        values = {(n, d): 0.0 for n in nodes for d in dwells}
        if self.options.discount == 0:
            return values
        base = min(self.mean(n, 1 - silent) for n in nodes if self.graph.kept[n])
        for _ in range(40):
            before = values
            values = {}
            for n, d in before:
                onward = [
                    c + self.mean(j, 1 - silent) - base + before[j, e] for j, e, c in self.successors(n, d, silent)
                ]
                values[n, d] = self.options.discount * min(onward, default=math.inf)
        return values

    def node_cost(self, rows, t, n):
        cost = 1 - float(np.dot(self.motion.low[n].astype(float), rows.low[t]))
        if self.motion.high.shape[1]:
            cost += 1 - float(np.dot(self.motion.high[n].astype(float), rows.high[t]))
        cost *= self.costs.similarity_weight
        cost += self.costs.level_weight * (float(self.motion.level[n]) - float(rows.level[t])) ** 2
        speaking = float(rows.speaking[t])
        idle = self.costs.idle_weight * self.rest[n]
        return cost + (1 - speaking) * idle + speaking * self.costs.listless_weight * (1 - self.rest[n])

    def unusual(self, rows, t, n):
        return self.node_cost(rows, t, n) - self.mean(n, float(rows.speaking[t]))

    def keep(self, ahead):
        nodes = self.options.persistence_nodes
        if not 1 <= ahead <= int(3 * nodes):
            return 0.0
        return self.options.trust * math.exp(-((ahead / nodes) ** 1.5))

    def repetition(self, shown, step, n):
        reach = max(1, round(self.variety.repeat_s * 30 / 4))
        price = self.variety.repeat_weight * max(self.rest[n], self.options.idle_repeat)
        times = [s for s, m in enumerate(shown) if abs(m - n) <= NEAR_NODES and SAME_MOMENT_STEPS <= step - s <= reach]
        return price * max((1 - (step - s) / reach for s in times), default=0.0)

    def expected_repetition(self, shown, step, n):
        """Of a stretch that goes on: its nodes count by when they were shown last."""
        last = max((s for s, m in enumerate(shown) if abs(m - n) <= NEAR_NODES), default=None)
        return (
            0.0 if last is None or step - last < SAME_MOMENT_STEPS else self.repetition([*shown[: last + 1]], step, n)
        )

    def guessed(self, rows):
        return max(self.n_planned - (len(rows) - 1), 0)

    def price(self, rows, layer, n):
        last = len(rows) - 1
        if layer <= last:
            return self.mean(n, float(rows.speaking[layer])) + self.options.trust * self.unusual(rows, layer, n)
        cost, i = self.mean(n, float(rows.speaking[last])), n - (layer - last)
        if i >= 0 and self.clip[i] == self.clip[n]:
            cost += self.keep(layer - last) * self.unusual(rows, last, i)
        return cost

    def worth(self, rows, shown, step, n, dwell):
        last = len(rows) - 1
        speaking, guessed = float(rows.speaking[last]), self.guessed(rows)
        total = 0.0
        for share, values in ((speaking, self.values[0]), (1 - speaking, self.values[1])):
            if values[n, dwell] == math.inf:
                return math.inf
            total += share * values[n, dwell]
        i, following, gain, repeats = n - guessed, n, 0.0, 0.0
        for ahead in range(1, int(3 * self.options.persistence_nodes) - guessed + 1):
            if not any(j == following + 1 and not is_cut for j, _, is_cut in self.out[following]):
                break
            following += 1
            gain += self.keep(guessed + ahead)
            repeats += self.options.repeat_keep**ahead * self.expected_repetition(shown, step + ahead, following)
        if i >= 0 and self.clip[i] == self.clip[n]:
            total += gain * self.unusual(rows, last, i)
        return total + repeats

    def totals(self, outlook, shown, node, dwell, bonus=()):
        """{(successor, dwell there): cost of the best plan through it}; bonus: by step, {node: what it saves}."""
        self.n_planned = max([self.options.plan_nodes, *(step for step, saves in enumerate(bonus) if saves)])
        rows, step = outlook[: self.options.lookahead_nodes + 1], len(shown) - 1
        end = len(rows) - 1 + self.guessed(rows)
        jitter, jitter_row = node_jitter(self.search, step, end + 1, self.graph.n_nodes)
        best = {}
        for first in self.successors(node, dwell, 1 - float(rows.speaking[min(1, len(rows) - 1)])):
            table = {first[:2]: first[2]}
            for layer in range(1, end + 1):
                after = {}
                for (n, d), cost in table.items():
                    cost += self.price(rows, layer, n) + self.repetition(shown, step + layer, n)
                    cost += float(jitter[jitter_row[layer], n])
                    cost -= bonus[layer].get(n, 0.0) if layer < len(bonus) else 0.0
                    if layer == end:
                        total = cost + self.worth(rows, shown, step + layer, n, d)
                        best[first[:2]] = min(best.get(first[:2], math.inf), total)
                        continue
                    silent = 1 - float(rows.speaking[min(layer + 1, len(rows) - 1)])
                    for j, e, c in self.successors(n, d, silent):
                        after[j, e] = min(after.get((j, e), math.inf), cost + c)
                table = after
        return {state: total for state, total in best.items() if total < math.inf}
