// Templates give what jinja2 (3.1.6, with trim_blocks, lstrip_blocks and loopcontrols) gives, which wrote the texts below.
#include "lib/serve/jinja.h"

#include <doctest/doctest.h>

#include <array>
#include <string>
#include <vector>

#include "base/error.h"

using namespace ratplus;
using Json = nlohmann::ordered_json;

namespace {

struct Case {
  const char* name;
  const char* source;
  /// Of both conversations with add_generation_prompt, and without it.
  std::array<const char*, 4> texts;
};

// clang-format off
const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"llama 2",
       R"#({% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %})#",
       {R"#(<s>[INST] <<SYS>>
Be brief.
Always.
<</SYS>>

 Hello <b> [/INST] Hi é </s><s>[INST] Why? [/INST])#",
        R"#(<s>[INST] <<SYS>>
Be brief.
Always.
<</SYS>>

 Hello <b> [/INST] Hi é </s><s>[INST] Why? [/INST])#",
        R"#(<s>[INST] One [/INST])#",
        R"#(<s>[INST] One [/INST])#"}},
      {"ChatML",
       R"#({% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})#",
       {R"#(<|im_start|>system
Be brief.
Always.<|im_end|>
<|im_start|>user
 Hello <b> <|im_end|>
<|im_start|>assistant
Hi é<|im_end|>
<|im_start|>user
Why?<|im_end|>
<|im_start|>assistant
)#",
        R"#(<|im_start|>system
Be brief.
Always.<|im_end|>
<|im_start|>user
 Hello <b> <|im_end|>
<|im_start|>assistant
Hi é<|im_end|>
<|im_start|>user
Why?<|im_end|>
)#",
        R"#(<|im_start|>user
One<|im_end|>
<|im_start|>assistant
)#",
        R"#(<|im_start|>user
One<|im_end|>
)#"}},
      {"zephyr",
       R"#({% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
)#",
       {R"#(<|system|>
Be brief.
Always.</s>
<|user|>
 Hello <b> </s>
<|assistant|>
Hi é</s>
<|user|>
Why?</s>
<|assistant|>
)#",
        R"#(<|system|>
Be brief.
Always.</s>
<|user|>
 Hello <b> </s>
<|assistant|>
Hi é</s>
<|user|>
Why?</s>
)#",
        R"#(<|user|>
One</s>
<|assistant|>
)#",
        R"#(<|user|>
One</s>
)#"}},
      {"llama 3",
       R"#({% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %})#",
       {R"#(<s><|start_header_id|>system<|end_header_id|>

Be brief.
Always.<|eot_id|><|start_header_id|>user<|end_header_id|>

Hello <b><|eot_id|><|start_header_id|>assistant<|end_header_id|>

Hi é<|eot_id|><|start_header_id|>user<|end_header_id|>

Why?<|eot_id|><|start_header_id|>assistant<|end_header_id|>

)#",
        R"#(<s><|start_header_id|>system<|end_header_id|>

Be brief.
Always.<|eot_id|><|start_header_id|>user<|end_header_id|>

Hello <b><|eot_id|><|start_header_id|>assistant<|end_header_id|>

Hi é<|eot_id|><|start_header_id|>user<|end_header_id|>

Why?<|eot_id|>)#",
        R"#(<s><|start_header_id|>user<|end_header_id|>

One<|eot_id|><|start_header_id|>assistant<|end_header_id|>

)#",
        R"#(<s><|start_header_id|>user<|end_header_id|>

One<|eot_id|>)#"}},
      {"qwen, with a namespace",
       R"#({%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- else %}
    {{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages %}
    {#- a comment
        of two lines #}
    {%- if message.content is string and message.role in ["user", "assistant"] %}
        {%- if message.role == "user" and ns.multi_step %}{%- set ns.multi_step = false %}{%- set ns.last = loop.index0 %}{%- endif %}
        {{- '<|im_start|>' ~ message.role ~ '\n' ~ message.content.split('</think>')[-1].lstrip('\n') ~ '<|im_end|>' }}{{ '\n' }}
    {%- endif %}
{%- endfor %}
{{- ns.last }}{{ "yes" if tools is none else "no" }}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
)#",
       {R"#(<|im_start|>system
Be brief.
Always.<|im_end|>
<|im_start|>user
 Hello <b> <|im_end|>
<|im_start|>assistant
Hi é<|im_end|>
<|im_start|>user
Why?<|im_end|>
1yes<|im_start|>assistant
)#",
        R"#(<|im_start|>system
Be brief.
Always.<|im_end|>
<|im_start|>user
 Hello <b> <|im_end|>
<|im_start|>assistant
Hi é<|im_end|>
<|im_start|>user
Why?<|im_end|>
1yes)#",
        R"#(<|im_start|>system
You are a helpful assistant.<|im_end|>
<|im_start|>user
One<|im_end|>
0yes<|im_start|>assistant
)#",
        R"#(<|im_start|>system
You are a helpful assistant.<|im_end|>
<|im_start|>user
One<|im_end|>
0yes)#"}},
      {"small things",
       R"#({% set items = [1, 2, 3] + [4] %}{{ items[-1] }}{{ items | length }} {{ items[1:3] | join('-') }} {{ 7 // 2 }} {{ 7 % 4 }} {{ -3 + 2 * 4 }} {{ 1 == 1.0 }}
  {% for x in items if x > 2 %}
  [{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}{{ x }}]
  {%- else %}
  none
  {% endfor %}
{% for k, v in {'a': 1, 'b': [true, none]}.items() %}{{ k }}={{ v | tojson }};{% endfor %}
   {%+ if x is not defined and 'ell' in 'hello' and not ('z' in {'y': 1}) %} kept {% endif %}
{{- "  x  " | trim ~ 'UP' | lower ~ ("a" if false else 'b') }}
{% for x in [] %}{% else %}empty{% endfor %}{{ undefined_name | default('none') }}{{ '' | default('falsy', true) }}
{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% set text %}captured {{ 1 + 1 }}{% endset %}{{ text }} {{ 'abc'[1] }}{{ 'a,b' .split(',') | last }}{{ "it's" 'joined' }} {{ true and 'x' or 'y' }}
{{ messages | tojson(indent=2) }} {{ messages[0]['missing'] is defined }} é{{ 'héé' | length }})#",
       {R"#(44 2-3 3 3 5 True
  [1/2,3]  [2/24]a=1;b=[true, null];    kept xupb
emptynonefalsy
02captured 2 bbit'sjoined x
[
  {
    "role": "system",
    "content": "Be brief.\nAlways."
  },
  {
    "role": "user",
    "content": " Hello <b> "
  },
  {
    "role": "assistant",
    "content": "Hi é"
  },
  {
    "role": "user",
    "content": "Why?"
  }
] False é3)#",
        R"#(44 2-3 3 3 5 True
  [1/2,3]  [2/24]a=1;b=[true, null];    kept xupb
emptynonefalsy
02captured 2 bbit'sjoined x
[
  {
    "role": "system",
    "content": "Be brief.\nAlways."
  },
  {
    "role": "user",
    "content": " Hello <b> "
  },
  {
    "role": "assistant",
    "content": "Hi é"
  },
  {
    "role": "user",
    "content": "Why?"
  }
] False é3)#",
        R"#(44 2-3 3 3 5 True
  [1/2,3]  [2/24]a=1;b=[true, null];    kept xupb
emptynonefalsy
02captured 2 bbit'sjoined x
[
  {
    "role": "user",
    "content": "One"
  }
] False é3)#",
        R"#(44 2-3 3 3 5 True
  [1/2,3]  [2/24]a=1;b=[true, null];    kept xupb
emptynonefalsy
02captured 2 bbit'sjoined x
[
  {
    "role": "user",
    "content": "One"
  }
] False é3)#"}},
  };
  return all;
}
// clang-format on

}  // namespace

TEST_CASE("templates write what jinja2 writes") {
  const std::vector<Json> conversations = {{{{"role", "system"}, {"content", "Be brief.\nAlways."}},
                                            {{"role", "user"}, {"content", " Hello <b> "}},
                                            {{"role", "assistant"}, {"content", "Hi é"}},
                                            {{"role", "user"}, {"content", "Why?"}}},
                                           Json::array({{{"role", "user"}, {"content", "One"}}})};
  for (const auto& x : cases()) {
    CAPTURE(x.name);
    const serve::JinjaTemplate jinja(x.source, x.name);
    for (std::size_t i = 0; i < x.texts.size(); ++i) {
      CAPTURE(i);
      CHECK(jinja.render({{"messages", conversations[i / 2]},
                          {"add_generation_prompt", i % 2 == 0},
                          {"bos_token", "<s>"},
                          {"eos_token", "</s>"},
                          {"tools", nullptr}}) == x.texts[i]);
    }
  }
}

TEST_CASE("a template that does not end, or that computes nonsense, is ended with its line") {
  const auto message = [](const char* source) {
    std::string text;
    try {
      serve::JinjaTemplate(source, "t").render({{"x", "text"}, {"list", {1, 2}}});
    } catch (const Error& error) {
      text = error.what();
    }
    return text;
  };
  CHECK(message("{% for a in range(2000) %}{% for b in range(2000) %}{% set c = 1 %}{% endfor %}{% endfor %}")
            .find("more than 1000000 steps") != std::string::npos);
  CHECK(message("{{ range(1000000) }}").find("range() of more") != std::string::npos);
  CHECK(message("\n{{ x / 2 }}") == "t, line 2: / of values of the types string and number");
  CHECK(message("{{ list % 0 }}").find("% of values") != std::string::npos);
  CHECK(message("{{ 1 // 0 }}") == "t, line 1: // by zero");
  CHECK(message("{{ y.z.w }}").find("an undefined value has no part \"z\"") != std::string::npos);
  CHECK(message("{{ list }}").find("use the filter tojson") != std::string::npos);
  CHECK(message("{% set x.y = 1 %}").find("no namespace()") != std::string::npos);
  CHECK(message("{% for a, b in list %}{% endfor %}").find("has no items") != std::string::npos);
  CHECK(message("{% if 1 %}{{ raise_exception('no') }}{% endif %}") == "t, line 1: no");
  CHECK(message("{{ x[5] is defined }}").empty());
}
