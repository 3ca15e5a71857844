"""When things happened, as a row of bars that fits into a terminal and a document."""

import collections

BUCKET = 0.25  # seconds
BARS = " ▁▂▃▄▅▆▇█"


class Histogram:
    """Of moments in seconds, which should be spread evenly over `window` seconds."""

    def __init__(self, moments, window):
        counted = collections.Counter(int(moment / BUCKET) for moment in moments)
        self.counts = [counted[number] for number in range(max(counted) + 1)]
        self.even = len(moments) * BUCKET / window

    @property
    def most(self):
        return max(self.counts)

    def __str__(self):
        """The tallest bar is twice the even share or more."""
        heights = (round(count / self.even / 2 * (len(BARS) - 1)) for count in self.counts)
        bars = "".join(BARS[min(height, len(BARS) - 1)] for height in heights)
        return f"|{bars}| {sum(self.counts)}, even {self.even:.1f}, most {self.most}"
