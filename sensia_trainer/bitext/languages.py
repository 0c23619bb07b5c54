"""The one table of languages: FLORES-200 code, ISO 639-1, ISO 639-3, English name.

FLORES-200 codes (`ind_Latn`) name evaluation sets, ISO 639-1 codes (`id`) name bitext columns, and ISO 639-3 codes
(`ind`) are what many corpora use. A language without an ISO 639-1 code goes by its ISO 639-3 code everywhere.
"""

import difflib
from typing import NamedTuple


class Language(NamedTuple):
    """One row of the table; the columns of a bitext are named by `code`."""

    flores: str  # FLORES-200, with its script: "ind_Latn"
    iso1: str  # ISO 639-1: "id"; empty where there is none
    iso3: str  # ISO 639-3 as FLORES-200 uses it: "ind"
    name: str  # in English: "Indonesian"

    @property
    def code(self) -> str:
        """The code of bitext columns: ISO 639-1 where it exists, else ISO 639-3."""
        return self.iso1 or self.iso3

    @property
    def script(self) -> str:
        """ISO 15924 code of the script: "Latn"."""
        return self.flores.split("_")[1]

    @property
    def has_spaces(self) -> bool:
        """Whether the script separates words by spaces; lengths are counted in characters where it does not."""
        return self.script not in ("Hans", "Hant", "Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Tibt")


_TABLE = """
eng_Latn en eng English            | est_Latn et est Estonian           | ind_Latn id ind Indonesian
swh_Latn sw swh Swahili            | tur_Latn tr tur Turkish            | zho_Hans zh zho Chinese
afr_Latn af afr Afrikaans          | als_Latn sq als Albanian           | amh_Ethi am amh Amharic
arb_Arab ar arb Arabic             | asm_Beng as asm Assamese           | azj_Latn az azj Azerbaijani
bak_Cyrl ba bak Bashkir            | bel_Cyrl be bel Belarusian         | ben_Beng bn ben Bengali
bod_Tibt bo bod Tibetan            | bos_Latn bs bos Bosnian            | bul_Cyrl bg bul Bulgarian
cat_Latn ca cat Catalan            | ces_Latn cs ces Czech              | cym_Latn cy cym Welsh
dan_Latn da dan Danish             | deu_Latn de deu German             | ell_Grek el ell Greek
epo_Latn eo epo Esperanto          | eus_Latn eu eus Basque             | ewe_Latn ee ewe Ewe
fao_Latn fo fao Faroese            | fin_Latn fi fin Finnish            | fra_Latn fr fra French
gla_Latn gd gla Scottish Gaelic    | gle_Latn ga gle Irish              | glg_Latn gl glg Galician
guj_Gujr gu guj Gujarati           | hat_Latn ht hat Haitian Creole     | hau_Latn ha hau Hausa
heb_Hebr he heb Hebrew             | hin_Deva hi hin Hindi              | hrv_Latn hr hrv Croatian
hun_Latn hu hun Hungarian          | hye_Armn hy hye Armenian           | ibo_Latn ig ibo Igbo
isl_Latn is isl Icelandic          | ita_Latn it ita Italian            | jav_Latn jv jav Javanese
jpn_Jpan ja jpn Japanese           | kan_Knda kn kan Kannada            | kat_Geor ka kat Georgian
kaz_Cyrl kk kaz Kazakh             | khk_Cyrl mn khk Mongolian          | khm_Khmr km khm Khmer
kin_Latn rw kin Kinyarwanda        | kir_Cyrl ky kir Kyrgyz             | kor_Hang ko kor Korean
lao_Laoo lo lao Lao                | lin_Latn ln lin Lingala            | lit_Latn lt lit Lithuanian
ltz_Latn lb ltz Luxembourgish      | lug_Latn lg lug Ganda              | lvs_Latn lv lvs Latvian
mal_Mlym ml mal Malayalam          | mar_Deva mr mar Marathi            | mkd_Cyrl mk mkd Macedonian
mlt_Latn mt mlt Maltese            | mri_Latn mi mri Maori              | mya_Mymr my mya Burmese
nld_Latn nl nld Dutch              | nno_Latn nn nno Norwegian Nynorsk  | nob_Latn nb nob Norwegian Bokmal
npi_Deva ne npi Nepali             | nya_Latn ny nya Chichewa           | oci_Latn oc oci Occitan
ory_Orya or ory Odia               | pan_Guru pa pan Punjabi            | pbt_Arab ps pbt Pashto
pes_Arab fa pes Persian            | plt_Latn mg plt Malagasy           | pol_Latn pl pol Polish
por_Latn pt por Portuguese         | ron_Latn ro ron Romanian           | run_Latn rn run Rundi
rus_Cyrl ru rus Russian            | sin_Sinh si sin Sinhala            | slk_Latn sk slk Slovak
slv_Latn sl slv Slovenian          | smo_Latn sm smo Samoan             | sna_Latn sn sna Shona
snd_Arab sd snd Sindhi             | som_Latn so som Somali             | sot_Latn st sot Southern Sotho
spa_Latn es spa Spanish            | srp_Cyrl sr srp Serbian            | ssw_Latn ss ssw Swati
sun_Latn su sun Sundanese          | swe_Latn sv swe Swedish            | tam_Taml ta tam Tamil
tat_Cyrl tt tat Tatar              | tel_Telu te tel Telugu             | tgk_Cyrl tg tgk Tajik
tgl_Latn tl tgl Tagalog            | tha_Thai th tha Thai               | tir_Ethi ti tir Tigrinya
tsn_Latn tn tsn Tswana             | tso_Latn ts tso Tsonga             | tuk_Latn tk tuk Turkmen
uig_Arab ug uig Uyghur             | ukr_Cyrl uk ukr Ukrainian          | urd_Arab ur urd Urdu
uzn_Latn uz uzn Uzbek              | vie_Latn vi vie Vietnamese         | wol_Latn wo wol Wolof
xho_Latn xh xho Xhosa              | ydd_Hebr yi ydd Yiddish            | yor_Latn yo yor Yoruba
zsm_Latn ms zsm Malay              | zul_Latn zu zul Zulu               | lim_Latn li lim Limburgish
ace_Latn - ace Acehnese            | ast_Latn - ast Asturian            | ban_Latn - ban Balinese
bjn_Latn - bjn Banjar              | ceb_Latn - ceb Cebuano             | ckb_Arab - ckb Central Kurdish
fon_Latn - fon Fon                 | fur_Latn - fur Friulian            | ilo_Latn - ilo Ilocano
luo_Latn - luo Luo                 | min_Latn - min Minangkabau         | nso_Latn - nso Northern Sotho
pap_Latn - pap Papiamento          | war_Latn - war Waray               | crh_Latn - crh Crimean Tatar
"""

LANGUAGES = tuple(
    Language(flores, iso1.strip("-"), iso3, name)
    for line in _TABLE.strip().splitlines()
    for flores, iso1, iso3, name in (row.split(maxsplit=3) for row in map(str.strip, line.split("|")))
)

# Further codes in use for the same languages: macrolanguages of ISO 639-3, individual languages, old codes.
ALIASES = {
    "swa": "sw", "ekk": "et", "cmn": "zh", "zho_cn": "zh", "zh_cn": "zh", "zh_hans": "zh", "in": "id", "iw": "he",
    "sqi": "sq", "ara": "ar", "aze": "az", "lav": "lv", "mlg": "mg", "mon": "mn", "msa": "ms", "nep": "ne",
    "no": "nb", "nor": "nb", "ori": "or", "pus": "ps", "fas": "fa", "uzb": "uz", "yid": "yi",
}  # fmt: skip

_BY_CODE = {code.lower(): row for row in LANGUAGES for code in (row.flores, row.iso1, row.iso3) if code}
_BY_CODE |= {alias: _BY_CODE[code] for alias, code in ALIASES.items()}


def language(code: str) -> Language:
    """The row of a language, from any of its codes (`id`, `ind`, `ind_Latn`, `zh-CN`; case does not matter).

    Raises ValueError with near matches where the code is unknown.
    """
    row = _BY_CODE.get(str(code).strip().lower().replace("-", "_"))
    if row is None:
        raise ValueError(f"unknown language code {code!r}; {_suggestions(str(code))}")
    return row


def codes_of(code: str) -> list[str]:
    """Every name a column, a folder or a file may carry for this language, most specific first."""
    row = language(code)
    aliases = [alias for alias, iso in ALIASES.items() if iso == row.code]
    regions = ["zh_Hans", "zh_CN", "zh-CN", "zh_Hans_CN"] if row.code == "zh" else []
    codes = [str(code), row.code, row.flores, row.iso3, f"{row.code}_{row.script}", *regions, *aliases]
    return list(dict.fromkeys(codes))


def _suggestions(code: str) -> str:
    names = {row.name.lower(): row.code for row in LANGUAGES}
    near = difflib.get_close_matches(code.lower(), list(names) + list(_BY_CODE), n=4, cutoff=0.5)
    near = list(dict.fromkeys(names.get(match, match) for match in near))
    known = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return f"{known}Give an ISO 639-1, ISO 639-3 or FLORES-200 code, such as 'id', 'ind' or 'ind_Latn'"
