"""What people read in a notice, by language: what happened, why in plain words, and what to do about it.

Reasons go by bounce class (`answers.classify.CLASSES`); a class without words of its own is told by what the remote
said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from malote_relay.config import Language

_MOMENT: Final = 5.0


@dataclass(frozen=True, slots=True)
class Words:
    """The texts of one language, with the places that `str.format` fills in."""

    failed_subject: str
    failed: str
    failed_end: str
    bounced: str
    delayed_subject: str
    delayed: str
    delayed_end: str
    relayed_subject: str
    relayed: str
    relayed_end: str
    summary_subject: str
    summary: str
    this_is: str
    said: str
    found: str
    gave_up: str
    reasons: Mapping[str, str]
    late_reasons: Mapping[str, str]
    """In place of those, where a delay is told of: what is only said for now, and tried again."""
    units: tuple[str, str, str, str]
    """Days, hours, minutes, seconds."""
    moment: str

    def reason(self, bounce_class: str, *, late: bool) -> str:
        """Why, and what to do about it; "" for a class without words."""
        own = self.late_reasons.get(bounce_class, "") if late else ""
        return own or self.reasons.get(bounce_class, "")

    def span(self, seconds: float) -> str:
        """A time span in words: its largest fitting unit."""
        for unit, length in zip(self.units, (86_400, 3_600, 60), strict=False):
            if seconds >= 2 * length:
                return f"{seconds / length:.0f} {unit}"
        return f"{seconds:.0f} {self.units[-1]}" if seconds >= _MOMENT else self.moment


_ENGLISH: Final = Words(
    failed_subject="Undelivered mail returned to sender",
    failed="Your message, accepted here {waited} ago, could not be delivered to:",
    failed_end=(
        "Nothing more will be tried for them. A report for programs and your message, or its headers, follow."
    ),
    bounced=(
        "Your message, accepted here {waited} ago, was passed on, and the next server took it. Now it has been "
        "reported that it could not be delivered to:"
    ),
    delayed_subject="Delivery of your message takes longer",
    delayed="Your message, accepted here {waited} ago, has not been delivered yet to:",
    delayed_end=(
        "This is only a warning: you need not send it again. The relay keeps trying until {until} and tells you "
        "if it gives up."
    ),
    relayed_subject="Your message was passed on",
    relayed="Your message was passed on, {waited} after it was accepted here, for:",
    relayed_end="Its server does not confirm delivery: you will hear no more unless something fails there.",
    summary_subject="Notices about your mail were left out",
    summary=(
        "So many notices about mail from {sender} were due that, since {since}, {count} notices have been left out: "
        "of failures, of delays, or of mail that was passed on. What became of each recipient is in the relay's "
        "reports. If many have failed, please check the list of recipients before sending to it again."
    ),
    this_is="This is the mail relay {name}.",
    said="{host} said:",
    found="This relay itself found:",
    gave_up="This relay gave it up:",
    reasons={
        "bad-mailbox": "There is no such mailbox. Check the address, and take it off your list.",
        "bad-domain": "The domain does not exist or takes no mail. Check the part after the @.",
        "inactive": "The mailbox is disabled or no longer used. Take the address off your list.",
        "quota": "The mailbox is full. Try again in some days, or reach the person another way.",
        "policy": "The recipient's server refuses the message by a rule of its own. Its words below say which.",
        "spam": "The recipient's server takes the message for spam. Look at the content, and whether it was wanted.",
        "spam-content": "The recipient's server takes the message for spam. Look at the content and the attachments.",
        "bad-sender": "The recipient's server refuses your address. Check that it exists and can receive mail.",
        "protocol": "The recipient's server does not like the message's form. Please tell your provider.",
        "system": "The recipient's server has trouble of its own.",
        "reputation": "The recipient's server distrusts where the message comes from. Please tell your provider.",
        "auth": "The sender could not be authenticated. Check your domain's SPF, DKIM and DMARC records.",
        "routing": "The recipient's servers pass the message to nobody. Only their operator can change that.",
        "tls": "No encrypted connection could be had. Only the servers' operators can change that.",
        "too-big": "The message is too big for the recipient's server. Send it without attachments.",
        "rate-limit": "The recipient's server takes no more messages for now.",
        "greylist": "The recipient's server asks every new sender to try again later.",
        "connection": "The recipient's server could not be reached.",
        "timeout": "The recipient's server did not answer in time.",
    },
    late_reasons={
        "bad-mailbox": "The recipient's server does not know the mailbox, or cannot tell yet. Check the address.",
        "bad-domain": "The domain cannot be found, or takes no mail, for now. Check the part after the @.",
        "inactive": "The mailbox takes no mail for now: it may be disabled.",
        "quota": "The mailbox is full. The message arrives once there is room in it.",
    },
    units=("days", "hours", "minutes", "seconds"),
    moment="a moment",
)

_PORTUGUESE: Final = Words(
    failed_subject="Mensagem não entregue",
    failed="Sua mensagem, aceita aqui há {waited}, não pôde ser entregue a:",
    failed_end=(
        "Não haverá novas tentativas para estes destinatários. Seguem um relatório para programas e a sua "
        "mensagem, ou os cabeçalhos dela."
    ),
    bounced=(
        "Sua mensagem, aceita aqui há {waited}, foi encaminhada, e o servidor seguinte a aceitou. Agora fomos "
        "informados de que ela não pôde ser entregue a:"
    ),
    delayed_subject="A entrega da sua mensagem está demorando",
    delayed="Sua mensagem, aceita aqui há {waited}, ainda não foi entregue a:",
    delayed_end=(
        "Isto é só um aviso: não é preciso enviar de novo. As tentativas continuam até {until}; se desistirmos, você "
        "será avisado."
    ),
    relayed_subject="Sua mensagem foi encaminhada",
    relayed="Sua mensagem foi encaminhada, {waited} depois de aceita aqui, para:",
    relayed_end="O servidor de destino não confirma entregas: só haverá outro aviso se algo falhar lá.",
    summary_subject="Avisos sobre suas mensagens foram omitidos",
    summary=(
        "Havia tantos avisos a enviar sobre as mensagens de {sender} que {count} deles foram omitidos desde {since}: "
        "sobre falhas, atrasos ou encaminhamentos. O resultado de cada destinatário está nos relatórios do relay. Se "
        "muitos falharam, revise a lista de destinatários antes de enviar para ela de novo."
    ),
    this_is="Este é o servidor de envio {name}.",
    said="Resposta de {host}:",
    found="Constatação deste próprio servidor:",
    gave_up="Este servidor desistiu da entrega:",
    reasons={
        "bad-mailbox": "Esta caixa postal não existe. Confira o endereço e tire-o da sua lista.",
        "bad-domain": "O domínio não existe ou não recebe mensagens. Confira a parte depois do @.",
        "inactive": "A caixa postal está desativada ou abandonada. Tire o endereço da sua lista.",
        "quota": "A caixa postal está cheia. Tente daqui a alguns dias, ou fale com a pessoa por outro meio.",
        "policy": "O servidor do destinatário recusa a mensagem por uma regra própria, dita na resposta abaixo.",
        "spam": "O servidor do destinatário considera a mensagem spam. Reveja o conteúdo e se ela foi solicitada.",
        "spam-content": "O servidor do destinatário considera a mensagem spam. Reveja o conteúdo e os anexos.",
        "bad-sender": "O servidor do destinatário recusa o seu endereço. Confira se ele existe e recebe mensagens.",
        "protocol": "O servidor do destinatário não aceita a forma da mensagem. Avise o seu provedor.",
        "system": "O servidor do destinatário está com problemas próprios.",
        "reputation": "O servidor do destinatário desconfia da origem da mensagem. Avise o seu provedor.",
        "auth": "O remetente não pôde ser autenticado. Confira os registros SPF, DKIM e DMARC do seu domínio.",
        "routing": "Os servidores do destinatário não encaminham a mensagem. Só quem os opera pode resolver.",
        "tls": "Não foi possível uma conexão cifrada. Só quem opera os servidores pode resolver.",
        "too-big": "A mensagem é grande demais para o servidor do destinatário. Envie sem anexos.",
        "rate-limit": "O servidor do destinatário não aceita mais mensagens por enquanto.",
        "greylist": "O servidor do destinatário pede a todo novo remetente que tente mais tarde.",
        "connection": "Não foi possível conectar ao servidor do destinatário.",
        "timeout": "O servidor do destinatário não respondeu a tempo.",
    },
    late_reasons={
        "bad-mailbox": "O servidor do destinatário não conhece a caixa, ou ainda não sabe. Confira o endereço.",
        "bad-domain": "O domínio não foi encontrado, ou não recebe mensagens agora. Confira a parte depois do @.",
        "inactive": "A caixa postal não recebe mensagens por enquanto: pode estar desativada.",
        "quota": "A caixa postal está cheia. A mensagem chegará assim que houver espaço nela.",
    },
    units=("dias", "horas", "minutos", "segundos"),
    moment="um momento",
)

WORDS: Final[Mapping[Language, Words]] = {Language.ENGLISH: _ENGLISH, Language.PORTUGUESE: _PORTUGUESE}
