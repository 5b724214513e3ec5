// What the rules of generation ask about the tokens so far: counts, and repetitions for DRY.
#include <algorithm>

#include "ops/_token_rules.h"

namespace honed {

namespace {

constexpr int64_t kFew = 64;  // tokens that are added one by one; more are sorted anew

bool before(const TokenCounts::Entry& entry, int64_t token) { return entry.token < token; }

// matches[k], 0 < k < count: how many tokens before (and with) the one k from the end are those at
// the end. (The Z array of the reversed history: every token is compared once beyond the window
// [left, right) that is known to match.)
void match_ends(const int64_t* tokens, int64_t count, std::vector<int32_t>& matches) {
  matches.assign(size_t(count), 0);
  const int64_t* last = tokens + count - 1;
  int64_t left = 0, right = 0;
  for (int64_t k = 1; k < count; ++k) {
    int64_t n = 0;
    if (k < right) n = std::min<int64_t>(right - k, matches[size_t(k - left)]);
    while (k + n < count && last[-n] == last[-(k + n)]) ++n;
    matches[size_t(k)] = int32_t(n);
    if (k + n > right) {
      left = k;
      right = k + n;
    }
  }
}

// How many tokens stand behind the last breaker; at most `limit`, which is all that matters.
int64_t since_breaker(const Dry& rule, const int64_t* tokens, int64_t count, int64_t limit) {
  size_t longest = 1;
  for (const TokenIds& breaker : rule.breakers) longest = std::max(longest, breaker.size());
  // i: the distance of a breaker's first token from the end. Of those that begin there, the longest.
  for (int64_t i = 0; i < count && i < limit + int64_t(longest); ++i) {
    size_t found = 0;
    const int64_t* here = tokens + count - 1 - i;
    for (const TokenIds& breaker : rule.breakers)
      if (breaker.size() > found && int64_t(breaker.size()) <= i + 1 &&
          std::equal(breaker.begin(), breaker.end(), here))
        found = breaker.size();
    if (found > 0) return std::min<int64_t>(limit, i + 1 - int64_t(found));
  }
  return limit;
}

}  // namespace

void TokenCounts::move_to(const int64_t* tokens, int64_t to_begin, int64_t to_end, int64_t vocab) {
  auto counted = [vocab](int64_t token) { return token >= 0 && token < vocab; };
  if (to_begin < begin || to_end < end || to_begin - begin > kFew || to_end - end > kFew) {
    std::vector<int32_t> sorted;
    sorted.reserve(size_t(to_end - to_begin));
    for (int64_t t = to_begin; t < to_end; ++t)
      if (counted(tokens[t])) sorted.push_back(int32_t(tokens[t]));
    std::sort(sorted.begin(), sorted.end());
    entries.clear();
    for (int32_t token : sorted) {
      if (entries.empty() || entries.back().token != token) entries.push_back({token, 0});
      ++entries.back().count;
    }
  } else {
    for (int64_t t = end; t < to_end; ++t) {
      if (!counted(tokens[t])) continue;
      auto at = std::lower_bound(entries.begin(), entries.end(), tokens[t], before);
      if (at == entries.end() || at->token != tokens[t])
        at = entries.insert(at, {int32_t(tokens[t]), 0});
      ++at->count;
    }
    for (int64_t t = begin; t < to_begin; ++t) {
      if (!counted(tokens[t])) continue;
      auto at = std::lower_bound(entries.begin(), entries.end(), tokens[t], before);
      if (--at->count == 0) entries.erase(at);
    }
  }
  begin = to_begin;
  end = to_end;
}

std::vector<Repeat> repeats_of(const Dry& rule, const int64_t* tokens, int64_t count,
                               std::vector<int32_t>& matches) {
  std::vector<Repeat> repeats;
  if (rule.window > 0 && count > rule.window) {
    tokens += count - rule.window;
    count = rule.window;
  }
  if (count <= rule.allowed_length) return repeats;
  match_ends(tokens, count, matches);
  int64_t longest = *std::max_element(matches.begin(), matches.end());
  if (longest < rule.allowed_length) return repeats;
  longest = since_breaker(rule, tokens, count, longest);
  if (longest < rule.allowed_length) return repeats;
  for (int64_t k = 1; k < count; ++k)
    if (matches[size_t(k)] >= rule.allowed_length)
      repeats.push_back(
          {tokens[count - k], int32_t(std::min<int64_t>(matches[size_t(k)], longest))});
  // A token's longest comes first, and is the one that stays.
  std::sort(repeats.begin(), repeats.end(), [](const Repeat& a, const Repeat& b) {
    return a.token != b.token ? a.token < b.token : a.length > b.length;
  });
  auto same = [](const Repeat& a, const Repeat& b) { return a.token == b.token; };
  repeats.erase(std::unique(repeats.begin(), repeats.end(), same), repeats.end());
  return repeats;
}

}  // namespace honed
