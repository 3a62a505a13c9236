"""Text in the row that talks to the model instead of being its subject. A flag: a person decides what it means.

The kinds are those that published attacks are sorted into: setting the task aside, marks of another speaker, another
task or part to play, asking for the prompt, dictating the answer, addressing a machine.
"""

from __future__ import annotations

import re

from treetune.core.language import say
from treetune.core.records import Example, Prediction, Reason

NAME = "injection"
TASKS: tuple[str, ...] = ()
FLAG_ONLY = True

OPENING = r"(?:^|[.!?;:,\n]\s*|\b(?:and|then|please|just|only|simply|kindly|must|to)\s+)"  # before an order
QUOTED = r"(?:the (?:word|number|letter) |with )*(?:[\"'“‘][^\"'”’\n]{1,30}[\"'”’]|(?-i:[A-Z]{2,})\b|\d+\b)"
MACHINE = r"(?:AI|LLM|(?:language )?model|assistant|chat ?bot|bot)s?"
ENGLISH = (
    # the task is set aside
    r"\b(?:ignore|disregard|forget|override|bypass|skip|stop following|pay no attention to|do(?: not|n['’]t) (?:follow|"
    r"obey))\b[^.!?\n]{0,40}\b(?:instructions?|prompts?|rules?|directions?|guidelines?|(?:system )?messages?|tasks?|"
    r"above|previous|prior|you (?:were|have been|are) (?:told|given|asked))\b",
    r"\bdo not (?:translate|summari[sz]e|classify)\b",
    # another speaker
    r"<\|[a-z_]+\|>|\[/?(?:INST|SYS)\]|<</?SYS>>|</?(?:system|instructions?|prompt)>|#{2,}\s*(?:system|instruction|"
    r"assistant|user)\b|(?:^|[.!?\n]\s*)(?:system|assistant|user|instructions?)\s*:",
    # another task or part
    r"\b(?:you are now|from now on,? you|act as (?:an?|the) |pretend (?:to be|you are)|new (?:instructions?|task|role)"
    r"\s*:)|\byour (?:new |real |actual |only |next )?(?:task|instructions?|goal) (?:is|are|has|have|now)\b",
    # the prompt
    r"\b(?:reveal|print|show|repeat|output|display|leak|tell me)\b[^.!?\n]{0,30}\b(?:system prompt|your (?:initial |"
    r"original |hidden |secret )?(?:instructions|prompt|rules))",
    # the answer
    r"\b(?:classify|label|mark|rate|judge|score|grade|translate|summari[sz]e|answer)\b[^.!?\n]{0,30}\b(?:this|it|"
    r"everything)\b[^.!?\n]{0,15}\b(?:as|to be)\b[^.!?\n]{0,5}\b(?:positive|negative|neutral|correct)\b",
    r"\b(?:respond|reply|answer) only with\b",
    OPENING + r"(?:print|output|write|reply|respond|answer|return)\s+" + QUOTED,
    r"\byou (?:must|have to|should) (?:always |now |only )?(?:answer|say|output|reply|respond|comply|obey)\b",
    # a machine is addressed
    rf"\b(?:note|message|instructions?) (?:to|for) (?:the |any |all )?{MACHINE}\b|\b(?:dear|hey|hello|attention),? "
    rf"{MACHINE}\b|\bas an? (?:AI|(?:AI |large )?language model)\b",
)
CHINESE = (
    r"(?:忽略|无视|忘记|忘掉|忘了|不要理会|不用理会|不用管|别管|跳过|停止执行|不要遵守|不必遵守)[^。！？\n]{0,12}"
    r"(?:指令|指示|提示|要求|规则|内容|任务|命令|设定|上文|前文|前面)",
    r"不要(?:翻译|总结|分类)",
    r"(?:^|[。！？\n]\s*)(?:系统|助手|用户)\s*[：:]",
    r"你现在是|从现在(?:开始|起),?，?你|请扮演|假装你|新的?(?:指令|任务)(?:[：:]|是)|你的(?:新)?任务(?:是|已|变|改)",
    r"(?:输出|显示|重复|告诉我|泄露|说出|打印)[^。！？\n]{0,8}(?:系统(?:提示|设定|指令)|提示词|你的(?:指令|提示|规则))",
    r"(?:判|评|标|标记|标注|分类|归)定?(?:为|成)[^。！？\n]{0,4}(?:正面|负面|中性|好评|差评|积极|消极|正确)",
    r"(?:只|仅)(?:回答|输出|回复)[“\"「]?[^。\n]{1,8}|直接(?:回答|输出|回复)[“\"「]",
    r"你(?:必须|只能|一定要)(?:给出|输出|回答|回复|服从|说)",
    r"(?:AI|人工智能|语言模型|智能)(?:助手|模型)?[，,：:]?(?:请注意|注意[：:]|你?必须)",
)
ORDER = re.compile("|".join((*ENGLISH, *CHINESE)), re.IGNORECASE | re.MULTILINE)
HIDDEN = re.compile("[\u200b\u2060\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]{2,}|[\U000e0020-\U000e007f]")


def find(prediction: Prediction, example: Example) -> Reason | None:
    for place, text in (("source", example.source), ("question", example.question)):
        match = ORDER.search(text) or (None if text.isascii() else HIDDEN.search(text))
        if match:
            return Reason(NAME, say("the row may hold an instruction to the model"), 1.0, 0.0, match[0][:80],
                          match.span(), place)
    return None
