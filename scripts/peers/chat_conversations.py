"""Conversations that chat templates are compared on: each is what a file for `signround template` holds."""

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Get the weather.\nUses \"metric\" units — always.",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "The city's name, e.g. 'Zürich' <b>&amp;</b>"},
        "days": {"type": "integer", "minimum": 1, "maximum": 18446744073709551615, "default": 3},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        "where": {"type": "object", "properties": {"lat": {"type": "number"}, "lon": {"type": ["number", "null"]}},
                  "required": ["lat"]},
        "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True}},
        "required": ["city"]},
    "return": {"type": "string", "description": "A report."}}}
ADD = {"type": "function", "function": {
    "name": "add", "description": "Adds two numbers.",
    "parameters": {"type": "object", "properties": {"a": {"type": "number", "default": 1.5},
                                                    "b": {"type": "number", "default": None}},
                   "required": ["a", "b"]}}}
TOOLS = [WEATHER, ADD]


def call(name, arguments, ident=None):
    result = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"id": ident, **result} if ident else result


def system(text="You are a helpful assistant."):
    return {"role": "system", "content": text}


def user(content="Hello, who are you?"):
    return {"role": "user", "content": content}


def assistant(content="I am a model.", **more):
    return {"role": "assistant", "content": content, **more}


def tool(content='{"temp": 21.5}', **more):
    return {"role": "tool", "content": content, **more}


ODD_TEXT = "  Grüße 😀 \"double\" 'single' \\back\\ {{ braces }} {% tag %} <|im_end|>\n\tnew line\r\n日本語 \u2028 end \n\n"
ARGUMENTS = {"city": "Zürich \"old\" <town>", "days": 2, "where": {"lat": 47.0, "lon": None}, "tags": [], "ok": True}
IMAGE = {"type": "image"}
TEXT = {"type": "text", "text": "What is on this picture?"}

CASES = {
    "user": {"messages": [user()]},
    "system-user": {"messages": [system(), user()]},
    "turns": {"messages": [system("Be brief."), user("One?"), assistant("1"), user("Two?"), assistant(" 2 "), user("3?")]},
    "ends-with-assistant": {"messages": [user("One?"), assistant("1"), user("Two?"), assistant("2\n")]},
    "no-system-turns": {"messages": [user("One?"), assistant("1"), user("Two?")]},
    "odd-text": {"messages": [system(ODD_TEXT), user(ODD_TEXT), assistant(ODD_TEXT), user("x" + ODD_TEXT)]},
    "empty-texts": {"messages": [system(""), user(""), assistant(""), user("")]},
    "assistant-first": {"messages": [assistant(), user()]},
    "user-twice": {"messages": [user("a"), user("b"), assistant("c")]},
    "assistant-twice": {"messages": [user("a"), assistant("b"), assistant("c"), user("d")]},
    "system-late": {"messages": [user("a"), system("late"), user("b")]},
    "system-only": {"messages": [system()]},
    "system-twice": {"messages": [system("a"), system("b"), user("c")]},
    "unknown-role": {"messages": [user("a"), {"role": "critic", "content": "b"}, user("c")]},
    "no-role": {"messages": [{"content": "a"}]},
    "no-content": {"messages": [{"role": "user"}]},
    "null-content": {"messages": [user("a"), assistant(None), user("b")]},
    "number-content": {"messages": [user(42), assistant(1.5), user(True)]},
    "list-text": {"messages": [system([{"type": "text", "text": "Sys."}]), user([TEXT]),
                               assistant([{"type": "text", "text": " A cat. "}]), user([TEXT, {"type": "text", "text": "b"}])]},
    "list-image": {"messages": [user([IMAGE, TEXT]), assistant("A cat."), user([TEXT, IMAGE, IMAGE, {"type": "video"}])]},
    "list-image-url": {"messages": [system(), user([{"type": "image_url", "image_url": {"url": "https://x/y.png"}}, TEXT])]},
    "image-key": {"messages": [user([{"image": "file:///a.png"}, {"text": "Look."}, {"video": "v.mp4"}])]},
    "list-strings": {"messages": [user(["a", "b"])]},
    "vision-id": {"messages": [user([IMAGE, TEXT, IMAGE])], "add_vision_id": True},
    "tools": {"messages": [user("Weather in Zürich?")], "tools": TOOLS},
    "tools-system": {"messages": [system("Use tools."), user("Weather?")], "tools": [WEATHER]},
    "tools-empty": {"messages": [user("a")], "tools": []},
    "tool-call": {"messages": [system(), user("Weather?"), assistant("", tool_calls=[call("get_weather", ARGUMENTS, "abcdefghi")]),
                               tool(name="get_weather", tool_call_id="abcdefghi"), assistant("It is warm."), user("Thanks")],
                  "tools": TOOLS},
    "tool-call-null": {"messages": [user("Weather?"), {"role": "assistant", "content": None,
                                                       "tool_calls": [call("get_weather", ARGUMENTS, "abcdefghi")]},
                                    tool(tool_call_id="abcdefghi")], "tools": [WEATHER]},
    "tool-call-no-content": {"messages": [user("Add"), {"role": "assistant", "tool_calls": [call("add", {"a": 1, "b": 2.0})]},
                                          tool("3")], "tools": [ADD]},
    "tool-call-text": {"messages": [user("Weather?"), assistant("Let me look.", tool_calls=[call("add", {"a": -1, "b": 1e20})]),
                                    tool("ok"), assistant("Done")], "tools": [ADD]},
    "tool-call-string": {"messages": [user("Weather?"), assistant("", tool_calls=[call("add", '{"a": 1, "b": 2}', "call_1234")]),
                                      tool("3", tool_call_id="call_1234"), user("more")], "tools": [ADD]},
    "tool-calls-two": {"messages": [user("Both?"), assistant("", tool_calls=[call("add", {"a": 1, "b": 2}, "aaaaaaaaa"),
                                                                             call("get_weather", {"city": "Bern"}, "bbbbbbbbb")]),
                                    tool("3", name="add", tool_call_id="aaaaaaaaa"),
                                    tool({"temp": [1, 2.50]}, name="get_weather", tool_call_id="bbbbbbbbb"),
                                    assistant("3, warm"), user("And?")], "tools": TOOLS},
    "tool-call-short-id": {"messages": [user("Add"), assistant("", tool_calls=[call("add", {}, "x")]), tool("3", tool_call_id="x")],
                           "tools": [ADD]},
    "tool-call-no-tools": {"messages": [user("Add"), assistant("", tool_calls=[call("add", {"a": 1, "b": 2}, "aaaaaaaaa")]),
                                        tool("3", tool_call_id="aaaaaaaaa", name="add"), assistant("3")]},
    "tool-call-bare": {"messages": [user("Add"), assistant("", tool_calls=[{"name": "add", "arguments": {"a": 1}}]), tool("1")],
                       "tools": [ADD]},
    "tool-result-list": {"messages": [user("Add"), assistant("", tool_calls=[call("add", {"a": 1, "b": 2}, "aaaaaaaaa")]),
                                      tool([{"type": "text", "text": "3"}], tool_call_id="aaaaaaaaa")], "tools": [ADD]},
    "tool-bare": {"messages": [user("a"), {"role": "ipython", "content": {"output": "x"}}, assistant("b")], "tools": [ADD]},
    "tool-first": {"messages": [tool("a"), user("b")]},
    "tool-nameless": {"messages": [user("a")], "tools": [{"type": "function"}]},
    "tool-flat": {"messages": [user("a")], "tools": [{"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}]},
    "tool-code": {"messages": [system(), user("Compute"), assistant("", tool_calls=[call("python", "print(1)\n", "aaaaaaaaa")]),
                               tool("1", name="python", tool_call_id="aaaaaaaaa")],
                  "tools": [{"type": "code_interpreter"}, ADD]},
    "parameter-definitions": {"messages": [user("Cohere?"), assistant("", tool_calls=[call("find", {"q": ["a", 1]}, "aaaaaaaaa")]),
                                           tool([{"r": 1}], tool_call_id="aaaaaaaaa")],
                              "tools": [{"name": "find", "description": "Finds.", "parameter_definitions": {
                                  "q": {"description": "query", "type": "List[str]", "required": True},
                                  "n": {"description": "count", "type": "int", "required": False}}}]},
    "documents": {"messages": [user("What?")], "documents": [{"title": "T", "text": "Body"}, {"title": "Ü", "text": "x\ny"}]},
    "reasoning": {"messages": [user("a"), assistant("b", reasoning_content="think"), user("c")]},
    "thinking": {"messages": [user("a"), {"role": "assistant", "thinking": "hm\n", "content": "b"}, user("c")]},
    "think-tags": {"messages": [user("a"), assistant("<think>\nhm\n</think>\n\nb"), user("c"),
                                assistant("<think>x</think>y")]},
    "no-thinking": {"messages": [user("a")], "enable_thinking": False},
    "date": {"messages": [user("a")], "date_string": "04 Jul 2026", "builtin_tools": ["brave_search"], "tools_in_user_message": False,
             "tools": [ADD]},
    "builtin-tools": {"messages": [system(), user("a"), assistant("", tool_calls=[call("brave_search", {"query": "x"})]),
                                   {"role": "ipython", "content": "y"}], "builtin_tools": ["brave_search", "code_interpreter"]},
    "custom-tools": {"messages": [user("a")], "custom_tools": [ADD], "builtin_tools": None},
    "system-dict": {"messages": [{"role": "system", "content": {"text": "x"}}, user("y")]},
    "extra-keys": {"messages": [{"name": "bob", "role": "user", "content": "a", "weight": 0}, assistant("b", prefix=True)]},
    "mistral-settings": {"messages": [{"role": "system", "content": "a"}, user("b"), assistant("c"), user("d")],
                         "tools": [ADD], "keep_past_runtime": True},
    "functions": {"messages": [user("a"), assistant("b", function_call={"name": "add", "arguments": "{}"})],
                  "functions": [ADD["function"]]},
}

# Some templates work only with tools of a simple kind, or with variables of their own.
SIMPLE = {"type": "function", "function": {
    "name": "now", "description": "Tells the time.", "parameters": {"type": "object", "properties": {
        "zone": {"type": "string", "description": "Time zone."},
        "names": {"type": "array", "items": {"type": "string"}, "description": "Names."},
        "map": {"type": "object", "description": "Map.", "additionalProperties": {"type": "integer"}}},
        "required": ["zone"]}}}
CASES.update({name + "+": {**case, "tools": [SIMPLE, SIMPLE], "functions": "[]", "datetime": "noon"}
              for name, case in CASES.items() if "tools" not in case and "functions" not in case})
