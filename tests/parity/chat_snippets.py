"""One construct of the Jinja subset at a time. Each entry: name, template, and what differs from the defaults.

`DATA` is passed to every snippet as further variables, and one user message "Hi <b>" as the messages.
Names that begin with `error_` must fail; `extra_` marks constructs that no known chat template uses.
"""

DATA = {
    "words": ["alpha", "Beta", "gamma", "beta", "alpha"],
    "numbers": [3, 1, 2],
    "mixed": [1, 2.0, "x", None, True, [1, "it's"], {"k": "v\n", "n": {"e": []}}, "say \"hi\"", "\u00e9\u4e2d\U0001f600\\"],
    "people": [{"name": "Ann", "age": 31, "tags": ["x"], "home": {"city": "Ulm"}}, {"name": "bob", "age": 7, "tags": []},
               {"name": "Cy", "age": 19, "home": {"city": "Jena"}}],
    "table": {"b": 2, "a": 1, "C": 3},
    "nested": {"list": [{"x": 1}, {"x": [True, None]}], "text": "<a href='x'>\u00e9 & \"q\"</a>\u2028\u007f\u0001", "empty": {}, "none": []},
    "text": "  The Quick-brown fox (it's) jUMPED\tover \n",
    "multi": "line 1\nline 2\n\n  line 4",
    "tricky": {"items": [1, 2], "keys": "K", "get": "G"},
    "floats": [1.0, 0.1, 1e16, 1e-7, 123456789.125, -0.0, 1e22, 5e-324, 3.0e5],
    "big": [0, -1, 2147483648, 9007199254740993, 9223372036854775807],
    "flag": True, "off": False, "nothing": None, "zero": 0, "blank": "", "accented": "\u00c9cole \u00dcBER stra\u00dfe",
    "cjk": "\u65e5\u672c\u8a9e\U0001f600!",
}

_S = []


def _add(name, template, **options):
    _S.append((name, template, options))


# Whitespace: trim_blocks, lstrip_blocks, minus and plus, the template's last newline.
_add("ws_trim_blocks", "a\n{% if flag %}\nb\n{% endif %}\nc\n")
_add("ws_lstrip_blocks", "a\n    {% if flag %}\n    b {% if flag %} c {% endif %}\n  \t{% endif %}\nd")
_add("ws_variable_keeps", "  {{ 1 }}  \n  {{ 2 }}\n")
_add("ws_minus", "a  \n\n {%- if flag -%} \n\n b \n {%- endif -%} \n c {{- 1 -}} \n d {#- x -#} e")
_add("ws_plus", "a\n  {%+ if flag %}b{% endif +%}\nc\n  {%+ if flag +%}\nd{% endif %}")
_add("ws_comment", "a\n  {# gone\n over lines #}\nb {# {{ 1 }} {% if %} #} c\n")
_add("ws_last_newline", "x\n\n")
_add("ws_crlf", "a\r\n{% if flag %}\r\nb\r\n{% endif %}\r\nc\rd")
_add("ws_minus_in_loop", "{% for w in words -%}\n  {{ w }}\n{%- endfor %}|{% for n in numbers %}\n {{ n }}\n{% endfor %}|")
_add("ws_inline_tags", "x {% if flag %} y {% endif %} z\n{% set a = 1 %}   after\n{% set b = 2 -%}   \n  after")
_add("ws_raw", "{% raw %}{{ x }} {% if %}{% endraw %}")
_add("ws_end_of_block_tab", "{% if flag %}\t\nq\n\t{% endif %}\t\nr")

# Literals and lexing.
_add("lit_strings", "{{ 'a\\nb\\t\\'c\\' \\\\ \\u00e9 \\x41' }}|{{ \"d'e\\\"f\" }}|{{ 'g\"h' }}|{{ '\u65e5\u672c' }}")
_add("lit_braces", "{{ '}}' }}{{ '%}' }}{% if '%}' == '%}' %}y{% endif %}{{ '{{' ~ '{%' ~ '#}' }}{{ {'a': {'b': {'c': 1}}}['a']['b']['c'] }}")
_add("lit_numbers", "{{ 1 }} {{ -2 }} {{ 3.50 }} {{ 1_000 }} {{ 1e3 }} {{ 2.5e-3 }} {{ +4 }}")
_add("lit_constants", "{{ true }} {{ True }} {{ false }} {{ False }} {{ none }} {{ None }}")
_add("lit_containers", "{{ [] }} {{ [1, 'a',] }} {{ {} }} {{ {'a': 1, \"b\": [none]} }} {{ () }} {{ (1,) }} {{ (1, 'b') }}")
_add("extra_concatenated_literals", "{{ 'a' 'b' \"c\" }}")
_add("lit_lone_braces", "{ { } } {a} % # {} {'x': 1} $ \\n")
_add("lit_long_literal", "<|im_start|>system\nRules: 1) {curly} 2) %percent% 3) #hash# <\uff5cUser\uff5c>\u2581\n")

# Printing of values.
_add("print_repr", "{{ mixed }}\n{{ mixed[6] }}\n{{ mixed | string }}\n{{ 'x' ~ mixed[5] }}")
_add("print_floats", "{% for f in floats %}{{ f }} {% endfor %}{{ 1.5 + 1.5 }} {{ 10 / 4 }} {{ 6 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }}")
_add("print_ints", "{{ big }} {{ big[3] + 1 }} {{ 2 ** 10 }} {{ 2 ** -1 }}")
_add("print_undefined", "[{{ missing }}][{{ people[0].missing }}][{{ people[9] }}][{{ words[-9] }}][{{ 'a' ~ missing }}]")
_add("print_html", "{{ messages[0].content }} {{ '<&>\"' }}")
_add("extra_escape", "{{ nested.text | e }}")
_add("print_control_repr", "{{ ['\\x00', '\\t\\r', '\\x7f', '\\u00a0', '\\u200b', '\\xad'] }}")

# Operators.
_add("op_arithmetic", "{{ 1 + 2 * 3 - 4 }} {{ (1 + 2) * 3 }} {{ 7 % 4 }} {{ 2 ** 3 }} {{ -numbers[0] }} {{ 1 - -1 }} {{ 5 - 2 - 1 }}")
_add("op_concat", "{{ 1 ~ 'a' ~ none ~ true ~ 2.0 ~ [1] }} {{ 'a' + 'b' ~ 'c' + 'd' }} {{ '-' * 3 }} {{ [1] + [2] }} {{ [0] * 2 }}")
_add("op_compare", "{{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ 2 >= 3 }} {{ 1 != 2 }} {{ true == 1 }} {{ 'a' == 1 }} {{ none == false }} {{ [1, 2] == [1, 2] }} {{ {'a': 1} == {'a': 1.0} }} {{ 1 < 2 < 3 }}")
_add("op_in", "{{ 'x' in 'axb' }} {{ '' in 'a' }} {{ 2 in numbers }} {{ 9 not in numbers }} {{ 'a' in table }} {{ 1 in table }} {{ 'role' in messages[0] }} {{ 'q' in ('p', 'q') }} {{ not 'x' in 'abc' }}")
_add("op_logic", "{{ '' or 'x' }} {{ 0 and 1 }} {{ 'a' and 'b' }} {{ none or [] or 'z' }} {{ not 0 }} {{ not words }} {{ true and not false or false }} {{ missing or 'm' }} {{ missing and 'm' }}")
_add("op_inline_if", "{{ 'a' if flag else 'b' }} {{ 'a' if off }}|{{ 'a' if off else 'b' if zero else 'c' }} {{ ('x' if flag) ~ 'y' }} {{ 1 if flag else 2 + 3 }}")
_add("op_precedence", "{{ '1' + 2 ~ 3 }} {{ 2 * 3 ~ 4 }} {{ not 1 == 2 }} {{ 1 + 1 in numbers }} {{ -1 | abs }} {{ 'a' ~ 'b' | upper }} {{ 2 ** 2 ** 3 }} {{ 1 if 1 is defined and not 2 is none else 3 }} {{ 'a' + words[0] | length | string }}")
_add("op_truth", "{% for v in [0, 0.0, '', [], {}, none, false, missing, '0', [0], -1, ' '] %}{{ 'T' if v else 'F' }}{% endfor %}")
_add("extra_format_operator", "{{ '%s is %d (%.2f) %5s|%-5s|%05d %%' % ('a', 3, 1.239, 'r', 'l', 42) }} {{ '%s' % none }}")

# Access.
_add("get_items_and_attributes", "{{ people[0].name }} {{ people[0]['name'] }} {{ people[0].home.city }} {{ people[-1]['home']['city'] }} {{ words[-1] }} {{ words.0 }} {{ table['b'] }}")
_add("get_method_or_key", "{{ tricky.items() | list }} {{ tricky['items'] }} {{ tricky['keys'] }} {{ tricky.get('get') }} {{ tricky['get'] }} {{ tricky | items | list | length }}")
_add("get_slices", "{{ numbers[1:] }} {{ numbers[:-1] }} {{ numbers[::-1] }} {{ words[::2] }} {{ words[-2:] }} {{ words[1:4:2] }} {{ words[10:] }} {{ numbers[-9:2] }} {{ (1, 2, 3)[1:] }} {{ words[3:0:-1] }}")
_add("get_string_slices", "{{ cjk[0] }} {{ cjk[-1] }} {{ cjk[::-1] }} {{ cjk[1:3] }} {{ cjk | length }} {{ 'abc'[5:] }}|{{ 'abcdef'[:2] }}")
_add("get_computed", "{% set k = 'na' ~ 'me' %}{{ people[1][k] }} {{ people[numbers[1]].age }} {{ {'x': {'y': 5}}['x'].y }} {{ [[1, 2], [3]][0][1] }}")

# Statements.
_add("set_plain", "{% set a = 1 %}{% set b, c = 2, 'x' %}{% set d = [a, b] %}{{ a }}{{ b }}{{ c }}{{ d }}{% set a = a + 1 %}{{ a }}{% set (p, q) = (7, 8) %}{{ p }}{{ q }}")
_add("set_scope", "{% set a = 1 %}{% for n in numbers %}{% set a = a + n %}{{ a }} {% endfor %}{{ a }}{% if true %}{% set a = 9 %}{% endif %}{{ a }}")
_add("set_inner_leak", "{% for n in numbers %}{% set inner = n %}{% if n == 1 %}{% set inner = 'one' %}{% endif %}{{ inner }}{% endfor %}[{{ inner }}][{{ n }}]")
_add("set_namespace", "{% set ns = namespace(a=0, items=[], t='') %}{% for n in numbers %}{% set ns.a = ns.a + n %}{% set ns.items = ns.items + [n] %}{% set ns.t = ns.t ~ n %}{% endfor %}{{ ns.a }} {{ ns['items'] }} {{ ns.t }} {{ ns.b }}|{% set ns.b = ns %}{{ ns.b.a }}")
_add("set_namespace_dict", "{% set ns = namespace({'x': 1}, y=2) %}{{ ns.x }}{{ ns.y }}{{ ns is defined }}{{ ns.z is defined }}")
_add("set_block", "{% set body %}\n  {{ words[0] }}!\n{% endset %}[{{ body }}]{{ body | length }}{% set up | upper | trim %} {{ words[1] }} {% endset %}[{{ up }}]")
_add("set_shadows_input", "{% set words = ['own'] %}{{ words[0] }}{% set messages = messages + [{'role': 'x', 'content': 'y'}] %}{{ messages | length }}")
_add("if_chain", "{% if zero %}a{% elif blank %}b{% elif flag and not off %}c{% else %}d{% endif %}{% if nothing is none %}e{% endif %}{% if missing %}f{% else %}g{% endif %}")
_add("for_loop_variables", "{% for w in words %}{{ loop.index }}/{{ loop.index0 }}/{{ loop.length }}/{{ loop.revindex }}/{{ loop.revindex0 }}{{ ' first' if loop.first }}{{ ' last' if loop.last }};{% endfor %}")
_add("for_neighbours", "{% for w in words %}{{ loop.previtem | default('-') }}<{{ w }}>{{ loop.nextitem if loop.nextitem is defined else '-' }} {% endfor %}{% for w in words %}{% if loop.previtem is defined and loop.previtem == 'Beta' %}after {{ w }}{% endif %}{% endfor %}")
_add("for_if", "{% for n in numbers if n > 1 %}{{ loop.index }}:{{ n }}{{ ',' if not loop.last }}{% endfor %}|{% for p in people if p.home is defined %}{{ p.name }}{% else %}none{% endfor %}|{% for n in numbers if n > 9 %}x{% else %}empty{% endfor %}")
_add("for_unpack", "{% for k, v in table.items() %}{{ k }}={{ v }} {% endfor %}{% for a, b in [(1, 2), [3, 4]] %}{{ a }}{{ b }} {% endfor %}{% for k, v in table | dictsort %}{{ k }}{{ v }} {% endfor %}{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}")
_add("for_kinds", "{% for c in 'h\u00e9\U0001f600' %}[{{ c }}]{% endfor %}{% for k in table %}{{ k }}{% endfor %}{% for x in missing %}x{% else %}nothing{% endfor %}{% for x in [] %}x{% else %}empty{% endfor %}{% for i in range(3) %}{{ i }}{% endfor %}")
_add("for_nested", "{% for p in people %}{% for t in p.tags %}{{ p.name }}:{{ t }}:{{ loop.first }}{% endfor %}{{ loop.index }}{% set outer = loop %}{% for n in numbers %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}")
_add("for_break_continue", "{% for n in range(10) %}{% if n == 2 %}{% continue %}{% endif %}{% if n == 5 %}{% break %}{% endif %}{{ n }}{% endfor %}|{% for a in numbers %}{% for b in numbers %}{% if b == 1 %}{% break %}{% endif %}{{ a }}{{ b }} {% endfor %}{% endfor %}")
_add("macro_defaults", "{% macro m(a, b='B', c=none) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(1, c=3) }}{{ m(c=1, a=2) }}{{ m() }}")
_add("macro_scope", "{% set g = 'global' %}{% macro m() %}{{ g }}{{ messages | length }}{% set g = 'own' %}{{ g }}{% endmacro %}{{ m() }}{{ g }}{% for g in numbers %}{{ m() }}{% endfor %}")
_add("macro_recursive", "{% macro down(n) %}{{ n }}{% if n > 0 %},{{ down(n - 1) }}{% endif %}{% endmacro %}{{ down(5) }}{% macro tree(t) %}{% if t is mapping %}({% for k, v in t.items() %}{{ k }}:{{ tree(v) }}{% endfor %}){% else %}{{ t }}{% endif %}{% endmacro %}{{ tree({'a': {'b': 1, 'c': {}}}) }}")
_add("macro_result_is_string", "{% macro m() %} 12 {% endmacro %}{{ m() | trim | int + 1 }}{{ m() == ' 12 ' }}{{ m() | length }}{% set x = m() %}[{{ x }}]{% if m() is string %}s{% endif %}")
_add("macro_whitespace", "{% macro m(x) -%}\n  <{{ x }}>\n{%- endmacro %}\n{{ m(1) }}{{- m(2) }}\n")
_add("macro_later_definition", "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}")
_add("call_block", "{% macro box(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call box('p') %}in {{ words[0] }}{% endcall %}{% call(x, y=2) box2() %}{{ x }}{{ y }}{% endcall %}".replace("{% call(x", "{% macro box2() %}{{ caller(1) }}{{ caller(3, y=4) }}{% endmacro %}{% call(x"))
_add("filter_block", "{% filter upper %}a{{ words[1] }}{% endfilter %}{% filter replace('a', 'o') | trim %} banana {% endfilter %}|{% filter indent(2) %}x\ny{% endfilter %}")
_add("generation_tag", "{% for m in messages %}{% generation %}{{ m.content }}\n{% endgeneration %}{% endfor %}a{%- generation -%} b {%- endgeneration -%} c")
_add("generation_scope", "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}")

# Tests.
_add("test_defined", "{{ flag is defined }} {{ missing is defined }} {{ missing is undefined }} {{ nothing is defined }} {{ people[0].home is defined }} {{ people[1].home is defined }} {{ missing is not defined }} {{ tools is defined }} {{ tools is none }} {{ documents is defined }}")
_add("test_kinds", "{% for v in [1, 1.5, true, none, 'x', [], {}, (1,)] %}{{ 's' if v is string }}{{ 'n' if v is number }}{{ 'i' if v is integer }}{{ 'f' if v is float }}{{ 'b' if v is boolean }}{{ 'N' if v is none }}{{ 'm' if v is mapping }}{{ 'I' if v is iterable }}{{ 'q' if v is sequence }} {% endfor %}")
_add("test_true_false", "{{ true is true }} {{ 1 is true }} {{ false is false }} {{ 0 is false }} {{ none is false }} {{ flag is not false }} {{ missing is false }}")
_add("test_numbers", "{{ 3 is odd }} {{ 4 is even }} {{ 9 is divisibleby(3) }} {{ 9 is divisibleby 2 }} {{ 3 is eq 3 }} {{ 3 is equalto(4) }} {{ 2 is gt 1 }} {{ 1 is in [1, 2] }} {{ 'a' is in 'cat' }} {{ 2 is ne 3 }}")
_add("test_negated", "{{ nothing is not none }} {{ not nothing is none }} {{ 'a' is not string }} {{ missing is not none }} {{ not missing is none }} {{ 1 is not mapping and 2 is not string }}")
_add("test_undefined_kinds", "{{ missing is string }} {{ missing is mapping }} {{ missing is iterable }} {{ missing is none }} {{ missing is sequence }}")
_add("extra_test_case", "{{ 'abc' is lower }} {{ 'ABC' is upper }} {{ 'aBc' is lower }}")

# Filters.
_add("filter_tojson", "{{ nested | tojson }}\n{{ mixed | tojson }}\n{{ floats | tojson }} {{ big | tojson }} {{ 'a/b<c>&\\'' | tojson }} {{ none | tojson }} {{ true | tojson }}")
_add("filter_tojson_indent", "{{ nested | tojson(indent=2) }}\n{{ people | tojson(indent=4) }}\n{{ [] | tojson(indent=2) }}{{ {} | tojson(indent=2) }}{{ [[]] | tojson(indent=1) }}{{ [1, 2] | tojson(indent=0) }}")
_add("filter_tojson_options", "{{ mixed | tojson(ensure_ascii=True) }} {{ cjk | tojson(ensure_ascii=true) }} {{ table | tojson(separators=(',', ':')) }} {{ table | tojson(sort_keys=true) }} {{ people | tojson(separators=(' ,', ' : '), indent=1) }} {{ cjk | tojson(false) }} {{ nested.list | tojson(indent=none) }}")
_add("filter_tojson_keys", "{{ {1: 'a', none: 'b', true: 'c', 1.5: 'd'} | tojson }} {{ {'k': (1, 2)} | tojson }}")
_add("filter_length", "{{ words | length }} {{ table | length }} {{ 'h\u00e9\U0001f600' | length }} {{ missing | length }} {{ '' | length }} {{ words | count }}")
_add("filter_trim", "[{{ text | trim }}][{{ 'xxaxx' | trim('x') }}][{{ '\\u3000 \\u00a0a\\u2003\\n' | trim }}][{{ 5 | trim }}][{{ '' | trim }}]")
_add("filter_string_list", "{{ 5 | string + 'x' }} {{ none | string }} {{ true | string | length }} {{ 'ab' | list }} {{ table | list }} {{ (1, 2) | list }} {{ range(2) | list }} {{ missing | string }}|{{ missing | list }}")
_add("filter_items", "{% for k, v in table | items %}{{ k }}{{ v }}{{ ',' if not loop.last }}{% endfor %}{{ missing | items | list }} {{ table | items | list }}")
_add("filter_case", "{{ text | title }}|{{ text | capitalize }}|{{ text | upper }}|{{ text | lower }}|{{ accented | upper }} {{ accented | lower }} {{ accented | title }} {{ 'hELLO wORLD' | capitalize }} {{ 5 | upper }}")
_add("filter_join", "{{ words | join(', ') }} {{ numbers | join }} {{ people | join('+', attribute='name') }} {{ [] | join('x') }} {{ [none, 1, true, 'a', missing] | join('-') }} {{ 'abc' | join('.') }} {{ table | join('/') }} {{ people | join(', ', 'age') }}")
_add("filter_default", "{{ missing | default('d') }} {{ nothing | default('d') }} {{ nothing | default('d', true) }} {{ '' | default('d', boolean=true) }} {{ 0 | default(5) }} {{ people[1].home | default({'city': '?'}) }} {{ missing | default }}|{{ missing | d('e') }}")
_add("filter_select", "{{ numbers | select('gt', 1) | list }} {{ mixed | select('string') | list | length }} {{ [0, 1, ''] | select | list }} {{ words | reject('equalto', 'alpha') | list }} {{ [1, none] | reject('none') | list }} {{ numbers | select('odd') | list }} {{ words | select('in', ['gamma']) | join }}")
_add("filter_selectattr", "{{ people | selectattr('home') | map(attribute='name') | list }} {{ people | selectattr('age', 'gt', 18) | list | length }} {{ people | rejectattr('tags') | map(attribute='name') | join(',') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ people | selectattr('home.city', '==', 'Ulm') | map(attribute='age') | first }} {{ people | selectattr('home', 'defined') | list | length }} {{ people | rejectattr('name', 'in', ['bob']) | map(attribute='name') | list }}")
_add("filter_map", "{{ words | map('upper') | join(' ') }} {{ people | map(attribute='name') | list }} {{ people | map(attribute='home.city', default='-') | list }} {{ numbers | map('string') | list }} {{ words | map('replace', 'a', 'o') | list }} {{ people | map(attribute='name') | map('length') | list }} {{ words | map('length') | list }} {{ [[1, 2], [3]] | map('first') | list }}")
_add("filter_first_last", "{{ words | first }} {{ words | last }} {{ [] | first }}|{{ [] | last }}|{{ 'xyz' | first }} {{ 'xyz' | last }} {{ ([] | first) is defined }} {{ table | first }}")
_add("filter_replace", "{{ 'banana' | replace('a', 'o') }} {{ 'banana' | replace('a', 'o', 2) }} {{ 'x' | replace('', '-') }} {{ 5 | replace('5', 'five') }} {{ '\u00e9\u4e2d\u00e9' | replace('\u00e9', '') }}")
_add("filter_unique", "{{ words | unique | list }} {{ words | unique(true) | list }} {{ [1, 1.0, 2, '1'] | unique | list }} {{ people | map(attribute='tags') | list | length }} {{ people | unique(attribute='age') | map(attribute='name') | join }}")
_add("filter_dictsort", "{{ table | dictsort }} {{ table | dictsort(true) }} {{ table | dictsort(by='value') }} {{ table | dictsort(reverse=true) }} {{ table | dictsort(false, 'value', true) }}")
_add("filter_indent", "{{ multi | indent }}|{{ multi | indent(2) }}|{{ multi | indent(2, true) }}|{{ multi | indent(width=3, first=true, blank=true) }}|{{ 'x' | indent(4) }}|{{ 'a\\n' | indent(2) }}|{{ multi | indent('> ') }}")
_add("filter_numbers", "{{ '42' | int }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ 3.9 | int }} {{ -3.9 | int }} {{ '3.7' | int }} {{ ' 5 ' | int }} {{ true | int }} {{ none | int }} {{ '1.5' | float }} {{ 'q' | float }} {{ 3 | float }} {{ -4 | abs }} {{ 2.567 | round(1) }} {{ 2.5 | round }} {{ 3.5 | round | int }}")
_add("extra_sort", "{{ numbers | sort }} {{ words | sort }} {{ words | sort(case_sensitive=true) }} {{ numbers | sort(reverse=true) }} {{ people | sort(attribute='age') | map(attribute='name') | list }} {{ numbers | reverse | list }} {{ 'abc' | reverse }}")
_add("extra_aggregate", "{{ numbers | sum }} {{ numbers | min }} {{ numbers | max }} {{ people | sum(attribute='age') }} {{ people | map(attribute='age') | max }}")
_add("filter_safe", "{{ '<b>' | safe }} {{ ('<i>' | safe) ~ '<' }} {{ messages[0].content | safe | trim }}")
_add("filter_chain", "{{ words | map('lower') | unique | list | length }} {{ (words | first | upper)[:2] }} {{ (' a ' | trim) in ['a'] }} {{ words | reject('in', ['alpha']) | map('title') | join(' & ') }}")
_add("extra_batch", "{{ words | batch(2) | list }} {{ words | batch(2, '-') | list | last }}")

# Methods.
_add("method_split", "{{ 'a,b,,c'.split(',') }} {{ ' a  b\\tc\\n'.split() }} {{ ''.split(',') }} {{ ''.split() }} {{ 'a--b--c'.split('--', 1) }} {{ 'a b c'.split(none, 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ 'x</think>y'.split('</think>')[-1] }} {{ 'a\\nb\\r\\nc'.splitlines() }}")
_add("method_strip", "[{{ text.strip() }}][{{ 'xxaxyx'.strip('x') }}][{{ 'abcba'.strip('ab') }}][{{ '\\n\\na\\n'.lstrip('\\n') }}][{{ '\\n\\na\\n'.rstrip('\\n') }}][{{ text.lstrip() }}][{{ text.rstrip() }}][{{ '\\u3000a\\u00a0'.strip() }}][{{ '\u00e9a\u00e9'.strip('\u00e9') }}]")
_add("method_affix", "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith('bc') }} {{ 'abc'.startswith('') }} {{ ''.endswith('x') }} {{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.endswith('abcd') }} {{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('c') }}")
_add("method_case", "{{ text.title() }}|{{ text.upper() }}|{{ text.lower() }}|{{ 'hELLO wORLD'.capitalize() }}|{{ accented.upper() }}|{{ accented.lower() }}|{{ \"it's o'neil x2y\".title() }}")
_add("method_replace", "{{ 'banana'.replace('a', 'o') }} {{ 'banana'.replace('a', 'o', 1) }} {{ 'aaa'.replace('aa', 'b') }}")
_add("method_dict", "{{ table.get('a') }} {{ table.get('z') }} {{ table.get('z', 'd') }} {{ table.keys() | list }} {{ table.values() | list }} {{ table.items() | list }} {{ messages[0].get('name') or 'anon' }} {{ messages[0].get('tool_calls', []) | length }}")
_add("extra_methods", "{{ ', '.join(words) }} {{ 'abcabc'.find('c') }} {{ 'abc'.find('z') }} {{ 'banana'.count('a') }} {{ '12'.isdigit() }} {{ 'a1'.isdigit() }} {{ words.index('gamma') }} {{ words.count('alpha') }} {{ 'abc'.isalpha() }} {{ ' '.isspace() }}")
_add("extra_format_method", "{{ '{} and {}'.format('a', 1) }} {{ '{0}{1}{0}'.format('x', 'y') }} {{ '{name}!'.format(name='N') }}")

# Functions.
_add("function_range", "{{ range(4) | list }} {{ range(1, 4) | list }} {{ range(0, 10, 3) | list }} {{ range(3, 0, -1) | list }} {{ range(0) | list }} {% for i in range(words | length - 1, -1, -1) %}{{ words[i][0] }}{% endfor %}")
_add("function_dict", "{{ dict(a=1, b='x') }} {{ dict() }} {{ dict(table, z=9) | tojson }} {{ dict([('k', 1)]) | tojson }} {{ dict(a=1)['a'] }}")
_add("function_strftime", "{{ strftime_now('%%') }} {{ strftime_now('%Y') | length }} {{ strftime_now('%Y-%m-%d') | length }} {{ strftime_now('plain') }} {{ strftime_now('%d %b %Y').split() | length }} {{ strftime_now('%H:%M:%S') | length }}")
_add("function_defined", "{{ raise_exception is defined }} {{ strftime_now is defined }} {% if strftime_now is defined %}y{% endif %} {{ raise_exception is callable }}")
_add("message_variables", "{{ messages[0]['role'] }} {{ add_generation_prompt }} {{ bos_token }}{{ eos_token }} {{ pad_token }}|{{ unk_token }}|{{ 'tools' if tools else 'no tools' }}")
_add("message_no_generation_prompt", "{% if not add_generation_prompt %}none{% endif %}{{ add_generation_prompt is defined }}", add_generation_prompt=False)

# Failures: `error_` names. The text after raise_exception must reach the user.
_add("error_raised", "before {{ raise_exception('No system role: ' ~ messages[0].role) }} after")
_add("error_raised_in_macro", "{% macro m(x) %}{% if x > 1 %}{{ raise_exception('Too large: %d' % x) }}{% endif %}{{ x }}{% endmacro %}{{ m(1) }}{{ m(2) }}")
_add("error_undefined_attribute", "{{ missing.name }}")
_add("error_undefined_nested", "{{ people[1].home.city }}")
_add("error_undefined_call", "{{ missing('x') }}")
_add("error_undefined_plus", "{{ 'a' + missing }}")
_add("error_undefined_tojson", "{{ missing | tojson }}")
_add("error_none_attribute_call", "{{ nothing.startswith('a') }}")
_add("error_add_types", "{{ 'a' + 1 }}")
_add("error_add_none", "{{ 'a' + nothing }}")
_add("error_concat_binds_tighter", "{{ 1 + 2 ~ 3 }}")
_add("error_compare_types", "{{ 1 < 'a' }}")
_add("error_divide_by_zero", "{{ 1 // zero }}")
_add("error_iterate_number", "{% for x in zero %}{% endfor %}")
_add("error_unpack", "{% for a, b in [[1, 2, 3]] %}{% endfor %}")
_add("error_unknown_filter", "{{ words | frobnicate }}")
_add("error_unknown_test", "{{ words is frobnicated }}")
_add("error_unknown_tag", "{% frobnicate %}")
_add("error_unclosed_if", "{% if flag %}x")
_add("error_unclosed_expression", "{{ flag ")
_add("error_unexpected_end", "x{% endif %}")
_add("error_bad_expression", "{{ 1 + }}")
_add("error_unclosed_string", "{{ 'abc }}")
_add("error_unclosed_comment", "a {# b")
_add("error_macro_extra_argument", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}")
_add("error_macro_unknown_keyword", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}")
_add("error_immutable_append", "{{ words.append('x') }}")
_add("error_immutable_update", "{{ table.update({'x': 1}) }}")
_add("error_range_too_large", "{% for i in range(1000000) %}{% endfor %}")
_add("error_private_attribute", "{{ ''.__class__.__mro__ }}")
_add("error_recursion", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}")
_add("error_set_attribute", "{% set d = {} %}{% set d.x = 1 %}")
_add("error_string_index", "{{ words['x'].y }}")

# Beyond the subset that known templates need.
_add("extra_with", "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}[{{ a }}]")
_add("extra_loop_cycle", "{% for n in numbers %}{{ loop.cycle('odd', 'even') }}{{ loop.changed(n) }}{{ loop.depth }} {% endfor %}")
_add("extra_recursive_loop", "{% for x in [1, [2, [3]]] recursive %}{% if x is number %}{{ x }}{% else %}({{ loop(x) }}){% endif %}{% endfor %}")
_add("extra_macro_varargs", "{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}")
_add("extra_groupby", "{% for k, v in [{'a': 1, 'b': 2}, {'a': 1, 'b': 3}] | groupby('a') %}{{ k }}{{ v | map(attribute='b') | list }}{% endfor %}")
_add("extra_markup_plus", "{{ ('<i>' | safe) + '<' }}")
_add("extra_joiner", "{% set sep = joiner('; ') %}{% for w in words %}{{ sep() }}{{ w }}{% endfor %}")
_add("extra_wordcount", "{{ text | wordcount }} {{ 'a b c' | truncate(3, true, '') }} {{ 'x' | center(5) }}| {{ '%s' | format('a') }}")

SNIPPETS = tuple(_S)
