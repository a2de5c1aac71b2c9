#include "signround/text/jinja_sequence_filters.h"

#include <algorithm>
#include <optional>

#include "signround/text/jinja_ast.h"
#include "signround/text/jinja_unicode.h"

namespace signround::jinja::filters {
namespace {

// Looks up "a.b.0" in an item, as the filters' `attribute` arguments do.
class AttributeGetter {
 public:
  AttributeGetter() = default;
  AttributeGetter(Runtime& runtime, const Value& attribute) {
    if (attribute.is(Kind::kNone)) return;
    if (!attribute.is_string()) {
      parts_.push_back(attribute);
      return;
    }
    const std::string& text = attribute.text();
    for (size_t at = 0; at <= text.size();) {
      const size_t end = std::min(text.find('.', at), text.size());
      const std::string part = text.substr(at, end - at);
      Int index = 0;
      const bool numeric =
          !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
      if (numeric && parse_int(part, 10, index))
        parts_.push_back(Value::integer(index));
      else
        parts_.push_back(Value::string(runtime, part));
      at = end + 1;
    }
  }

  void set_default(const Value& value) {
    if (!value.is(Kind::kNone)) default_ = value;
  }

  Value get(Runtime& runtime, Value item) const {
    for (const Value& part : parts_) {
      item = get_item(runtime, item, part);
      if (default_ && item.is_undefined()) item = *default_;
    }
    return item;
  }

  bool empty() const { return parts_.empty(); }

 private:
  std::vector<Value> parts_;
  std::optional<Value> default_;
};

Value ignore_case(Runtime& runtime, Value value, bool case_sensitive) {
  if (case_sensitive || !value.is_string()) return value;
  return Value::string(runtime, to_lower(value.text()));
}

struct Keyed {
  Value key, value;
};

// Python's sorted(): stable, also in reverse.
void sort_by_key(Runtime& runtime, Growing<Keyed>& keyed, bool reverse) {
  std::vector<Keyed>& values = keyed.values();
  const auto less = [&runtime](const Keyed& a, const Keyed& b) {
    return compare(runtime, a.key, b.key, "<") == -1;
  };
  if (reverse) std::reverse(values.begin(), values.end());
  std::stable_sort(values.begin(), values.end(), less);
  if (reverse) std::reverse(values.begin(), values.end());
}

std::vector<Value> values_of(Runtime& runtime, Growing<Keyed>& keyed) {
  Items items(runtime);
  for (Keyed& entry : keyed.values()) items.push(std::move(entry.value));
  return items.take();
}

Args rest_of(const Args& args, size_t first) {
  Args rest;
  rest.positional.assign(
      args.positional.begin() + static_cast<int64_t>(std::min(first, args.positional.size())),
      args.positional.end());
  rest.named = args.named;
  return rest;
}

int depth_of(const Args& args) {
  int depth = jinja::depth_of(args.positional);
  for (const auto& [name, value] : args.named) depth = std::max(depth, value.depth());
  return depth;
}

// Calls a filter or a test on each item, with the arguments that follow its name.
template <class Function>
auto call_named(Runtime& runtime, Function function, const Value& item, const Args& more) {
  Args args;
  args.positional.reserve(more.positional.size() + 1);
  args.positional.push_back(item);
  args.positional.insert(args.positional.end(), more.positional.begin(), more.positional.end());
  args.named = more.named;
  return function(runtime, args);
}

std::string name_of(Runtime& runtime, const Value& name, const char* type) {
  if (name.is_undefined()) fail_undefined(runtime, name);
  if (!name.is_string()) runtime.fail("there is no ", type, " named ", to_str(runtime, name));
  return name.text();
}

// select, reject and their variants on attributes. Like the generators that they are, they look at
// their arguments only when they are walked.
Value select_where(Runtime& runtime, const Args& args, bool wanted, bool by_attribute,
                   const char* name) {
  struct State {
    bool started = false;
    std::optional<Iteration> source;
    AttributeGetter getter;
    Test test = nullptr;
    Args more;
  };
  auto state = std::make_shared<State>();
  const auto start = [args, by_attribute](Runtime& run, State& s) {
    s.started = true;
    if (!truthy(args.positional[0])) return;
    size_t at = 1;
    if (by_attribute) {
      if (args.positional.size() < 2) run.fail("missing parameter for attribute name");
      s.getter = AttributeGetter(run, args.positional[at++]);
    }
    if (args.positional.size() > at) {
      const std::string test = name_of(run, args.positional[at], "test");
      s.test = find_test(test);
      if (s.test == nullptr) run.fail("there is no test '", test, "'");
      s.more = rest_of(args, at + 1);
    }
    s.source.emplace(run, args.positional[0]);
  };
  return make_iterator(
      runtime, name, depth_of(args), [state, start, wanted](Runtime& run, Value& item) {
        State& s = *state;
        if (!s.started) start(run, s);
        if (!s.source) return false;
        while (s.source->next(item)) {
          const Value looked_at = s.getter.get(run, item);
          const bool holds =
              s.test != nullptr ? call_named(run, s.test, looked_at, s.more) : truthy(looked_at);
          if (holds == wanted) return true;
        }
        return false;
      });
}

Value extreme(Runtime& runtime, const Args& args, const char* name, int wanted) {
  const Params params(runtime, name, args, {"value", "case_sensitive", "attribute"}, 1);
  const AttributeGetter getter(runtime, params.has(2) ? params[2] : Value::none());
  const bool case_sensitive = params.flag(1, false);
  Iteration iteration(runtime, params[0]);
  Value best, best_key;
  bool any = false;
  for (Value item; iteration.next(item);) {
    Value key = ignore_case(runtime, getter.get(runtime, item), case_sensitive);
    if (any && compare(runtime, key, best_key, wanted < 0 ? "<" : ">") != wanted) continue;
    any = true;
    best = std::move(item);
    best_key = std::move(key);
  }
  return any ? best : Value::undefined(runtime, "No aggregated item, sequence was empty.");
}

}  // namespace

Value batch(Runtime& runtime, const Args& args) {
  const Params params(runtime, "batch", args, {"value", "linecount", "fill_with"}, 2);
  const int64_t size = params.integer(1, 1);
  const Value fill = params.has(2) ? params[2] : Value::none();
  auto source = std::make_shared<Iteration>(runtime, params[0]);
  return make_iterator(runtime, "generator object do_batch", depth_of(args),
                       [source, size, fill](Runtime& run, Value& out) {
                         Items items(run);
                         int64_t count = 0;
                         // Python closes a batch when it has exactly this size, so a size below one
                         // gives one batch of everything.
                         for (Value item; (size < 1 || count < size) && source->next(item); ++count)
                           items.push(std::move(item));
                         if (count == 0) return false;
                         for (; !fill.is(Kind::kNone) && count < size; ++count) items.push(fill);
                         out = Value::list(run, items.take());
                         return true;
                       });
}

Value dictsort(Runtime& runtime, const Args& args) {
  const Params params(runtime, "dictsort", args, {"value", "case_sensitive", "by", "reverse"}, 1);
  const std::string by = params.has(2) ? params.string(2) : "key";
  if (by != "key" && by != "value")
    runtime.fail("you can only sort by either \"key\" or \"value\"");
  if (params[0].is_undefined()) fail_undefined(runtime, params[0]);
  if (!params[0].is(Kind::kDict))
    runtime.fail("dictsort expects a mapping, not ", type_name(params[0]));
  Growing<Keyed> keyed(runtime);
  for (const auto& [key, value] : params[0].dict().entries)
    keyed.push({ignore_case(runtime, by == "key" ? key : value, params.flag(1, false)),
                Value::tuple(runtime, {key, value})});
  sort_by_key(runtime, keyed, params.flag(3, false));
  return Value::list(runtime, values_of(runtime, keyed));
}

Value first(Runtime& runtime, const Args& args) {
  const Params params(runtime, "first", args, {"seq"}, 1);
  Iteration iteration(runtime, params[0]);
  Value item;
  return iteration.next(item) ? item
                              : Value::undefined(runtime, "No first item, sequence was empty.");
}

Value last(Runtime& runtime, const Args& args) {
  const Params params(runtime, "last", args, {"seq"}, 1);
  const Value& seq = params[0];
  if (!is_iterable(seq) || seq.is(Kind::kIterator))
    runtime.fail("'", type_name(seq), "' object is not reversible");
  if (length_of(seq) == 0) return Value::undefined(runtime, "No last item, sequence was empty.");
  if (!seq.is(Kind::kDict) && !seq.is(Kind::kDictView))
    return get_item(runtime, seq, Value::integer(-1));
  return collect(runtime, seq).back();
}

Value list(Runtime& runtime, const Args& args) {
  const Params params(runtime, "list", args, {"value"}, 1);
  return Value::list(runtime, collect(runtime, params[0]));
}

Value items(Runtime& runtime, const Args& args) {
  const Params params(runtime, "items", args, {"value"}, 1);
  const Value dict = params[0];
  auto at = std::make_shared<size_t>(0);
  return make_iterator(
      runtime, "generator object do_items", dict.depth(), [dict, at](Runtime& run, Value& item) {
        if (dict.is_undefined()) return false;
        if (!dict.is(Kind::kDict))
          run.fail("can only get item pairs from a mapping, not ", type_name(dict));
        if (*at >= dict.dict().entries.size()) return false;
        const auto& [key, value] = dict.dict().entries[(*at)++];
        item = Value::tuple(run, {key, value});
        return true;
      });
}

Value join(Runtime& runtime, const Args& args) {
  const Params params(runtime, "join", args, {"value", "d", "attribute"}, 1);
  const AttributeGetter getter(runtime, params.has(2) ? params[2] : Value::none());
  const std::string separator = params.has(1) ? to_str(runtime, params[1]) : "";
  Iteration iteration(runtime, params[0]);
  Text text(runtime);
  bool first_item = true;
  for (Value item; iteration.next(item);) {
    if (!first_item) text.append(separator);
    first_item = false;
    append_str(text, runtime, getter.empty() ? item : getter.get(runtime, item));
  }
  return Value::string(runtime, text.take());
}

Value map(Runtime& runtime, const Args& args) {
  struct State {
    bool started = false;
    std::optional<Iteration> source;
    AttributeGetter getter;
    Filter filter = nullptr;
    Args more;
  };
  auto state = std::make_shared<State>();
  const auto start = [args](Runtime& run, State& s) {
    s.started = true;
    if (!truthy(args.positional[0])) return;
    const auto is_attribute = [](const auto& named) { return named.first == "attribute"; };
    const auto attribute = std::find_if(args.named.begin(), args.named.end(), is_attribute);
    if (args.positional.size() == 1 && attribute != args.named.end()) {
      s.getter = AttributeGetter(run, attribute->second);
      for (const auto& [name, value] : args.named) {
        if (name == "default")
          s.getter.set_default(value);
        else if (name != "attribute")
          run.fail("map: unexpected keyword argument '", name, "'");
      }
    } else {
      if (args.positional.size() < 2) run.fail("map requires a filter argument");
      const std::string name = name_of(run, args.positional[1], "filter");
      s.filter = find_filter(name);
      if (s.filter == nullptr) run.fail("there is no filter '", name, "'");
      s.more = rest_of(args, 2);
    }
    s.source.emplace(run, args.positional[0]);
  };
  return make_iterator(
      runtime, "generator object do_map", depth_of(args), [state, start](Runtime& run, Value& out) {
        State& s = *state;
        if (!s.started) start(run, s);
        Value item;
        if (!s.source || !s.source->next(item)) return false;
        out =
            s.filter != nullptr ? call_named(run, s.filter, item, s.more) : s.getter.get(run, item);
        return true;
      });
}

Value max(Runtime& runtime, const Args& args) { return extreme(runtime, args, "max", 1); }
Value min(Runtime& runtime, const Args& args) { return extreme(runtime, args, "min", -1); }

Value select(Runtime& runtime, const Args& args) {
  return select_where(runtime, args, true, false, "generator object do_select");
}
Value reject(Runtime& runtime, const Args& args) {
  return select_where(runtime, args, false, false, "generator object do_reject");
}
Value selectattr(Runtime& runtime, const Args& args) {
  return select_where(runtime, args, true, true, "generator object do_selectattr");
}
Value rejectattr(Runtime& runtime, const Args& args) {
  return select_where(runtime, args, false, true, "generator object do_rejectattr");
}

Value reverse(Runtime& runtime, const Args& args) {
  const Params params(runtime, "reverse", args, {"value"}, 1);
  const Value& value = params[0];
  if (value.is_string())
    return jinja::slice(runtime, value, Value::none(), Value::none(), Value::integer(-1));
  std::vector<Value> items = collect(runtime, value);
  std::reverse(items.begin(), items.end());
  const Value reversed = Value::list(runtime, std::move(items));
  if (value.is(Kind::kIterator))
    return reversed;  // what cannot be reversed in Python is made a list first
  auto at = std::make_shared<size_t>(0);
  return make_iterator(runtime, "list_reverseiterator object", reversed.depth(),
                       [reversed, at](Runtime&, Value& item) {
                         if (*at >= reversed.items().size()) return false;
                         item = reversed.items()[(*at)++];
                         return true;
                       });
}

Value slice(Runtime& runtime, const Args& args) {
  const Params params(runtime, "slice", args, {"value", "slices", "fill_with"}, 2);
  const Value seq = Value::list(runtime, collect(runtime, params[0]));
  const int64_t slices = params.integer(1, 1);
  if (slices == 0) runtime.fail("slice: division by zero");
  const Value fill = params.has(2) ? params[2] : Value::none();
  auto number = std::make_shared<int64_t>(0);
  return make_iterator(runtime, "generator object do_slice", std::max(seq.depth(), depth_of(args)),
                       [seq, slices, fill, number](Runtime& run, Value& out) {
                         if (*number >= slices) return false;
                         const auto length = static_cast<int64_t>(seq.items().size());
                         const int64_t each = length / slices, longer = length % slices,
                                       i = (*number)++;
                         const int64_t begin = i * each + std::min(i, longer),
                                       end = begin + each + (i < longer ? 1 : 0);
                         Items part(run);
                         for (int64_t at = begin; at < end; ++at)
                           part.push(seq.items()[static_cast<size_t>(at)]);
                         if (!fill.is(Kind::kNone) && i >= longer) part.push(fill);
                         out = Value::list(run, part.take());
                         return true;
                       });
}

Value sort(Runtime& runtime, const Args& args) {
  const Params params(runtime, "sort", args, {"value", "reverse", "case_sensitive", "attribute"},
                      1);
  const bool case_sensitive = params.flag(2, false);
  std::vector<AttributeGetter> getters;
  if (params.has(3) && params[3].is_string()) {
    const std::string& names = params[3].text();
    for (size_t at = 0; at <= names.size();) {
      const size_t end = std::min(names.find(',', at), names.size());
      getters.emplace_back(runtime, Value::string(runtime, names.substr(at, end - at)));
      at = end + 1;
    }
  } else {
    getters.emplace_back(runtime, params.has(3) ? params[3] : Value::none());
  }
  Growing<Keyed> keyed(runtime);
  for (Value& value : collect(runtime, params[0])) {
    std::vector<Value> key;
    for (const AttributeGetter& getter : getters)
      key.push_back(ignore_case(runtime, getter.get(runtime, value), case_sensitive));
    keyed.push({Value::list(runtime, std::move(key)), std::move(value)});
  }
  sort_by_key(runtime, keyed, params.flag(1, false));
  return Value::list(runtime, values_of(runtime, keyed));
}

Value sum(Runtime& runtime, const Args& args) {
  const Params params(runtime, "sum", args, {"iterable", "attribute", "start"}, 1);
  const AttributeGetter getter(runtime, params.has(1) ? params[1] : Value::none());
  Value total = params.has(2) ? params[2] : Value::integer(0);
  if (total.is_string()) runtime.fail("sum() can't sum strings [use ''.join(seq) instead]");
  Iteration iteration(runtime, params[0]);
  for (Value item; iteration.next(item);)
    total = binary(runtime, BinaryOp::kAdd, total, getter.get(runtime, item));
  return total;
}

Value unique(Runtime& runtime, const Args& args) {
  const Params params(runtime, "unique", args, {"value", "case_sensitive", "attribute"}, 1);
  struct State {
    State(Runtime& run, const Value& value, const Value& attribute, bool exact_case)
        : source(run, value), getter(run, attribute), case_sensitive(exact_case), seen(run, {}) {}
    Iteration source;
    AttributeGetter getter;
    bool case_sensitive;
    DictObject seen;
  };
  const Value attribute = params.has(2) ? params[2] : Value::none();
  auto state = std::make_shared<State>(runtime, params[0], attribute, params.flag(1, false));
  return make_iterator(
      runtime, "generator object do_unique", depth_of(args), [state](Runtime& run, Value& item) {
        while (state->source.next(item)) {
          Value key = ignore_case(run, state->getter.get(run, item), state->case_sensitive);
          if (state->seen.find(key) != nullptr) continue;
          state->seen.set(std::move(key), Value::none());
          return true;
        }
        return false;
      });
}

Value groupby(Runtime& runtime, const Args& args) {
  const Params params(runtime, "groupby", args, {"value", "attribute", "default", "case_sensitive"},
                      2);
  AttributeGetter getter(runtime, params[1]);
  if (params.has(2)) getter.set_default(params[2]);
  const bool case_sensitive = params.flag(3, false);
  Growing<Keyed> keyed(runtime);
  for (Value& value : collect(runtime, params[0])) {
    Value key = ignore_case(runtime, getter.get(runtime, value), case_sensitive);
    keyed.push({std::move(key), std::move(value)});
  }
  sort_by_key(runtime, keyed, false);
  const std::vector<Keyed>& sorted = keyed.values();
  Items groups(runtime);
  for (size_t begin = 0; begin < sorted.size();) {
    size_t end = begin;
    Items members(runtime);
    while (end < sorted.size() && equals(runtime, sorted[end].key, sorted[begin].key))
      members.push(sorted[end++].value);
    // The group's name keeps the case of its first member.
    std::vector<Value> pair = {getter.get(runtime, sorted[begin].value),
                               Value::list(runtime, members.take())};
    groups.push(Value::object(Kind::kTuple,
                              std::make_shared<SequenceObject>(&runtime, std::move(pair), true)));
    begin = std::max(end, begin + 1);
  }
  return Value::list(runtime, groups.take());
}

}  // namespace signround::jinja::filters
