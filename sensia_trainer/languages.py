"""Languages: FLORES-200 code, ISO 639-1, English name, script and direction, from whatever code somebody gives.

FLORES-200 codes (`ind_Latn`) name evaluation sets, ISO 639-1 codes (`id`) name bitext columns, and ISO 639-3 codes
(`ind`) are what many corpora use. A language without an ISO 639-1 code goes by its ISO 639-3 code everywhere. The
table has the languages of FLORES-200, each in its main script, because FLORES names some by the one that was
translated (`swh`, not `swa`); every other code that the registry of BCP 47 has comes from `langcodes`. In another
script than its main one a language is a language of its own (`zh_Hant`). A region (`pt_BR`) is none.
"""

import difflib
import functools
import re
from collections.abc import Iterable
from typing import NamedTuple


class Language(NamedTuple):
    """A language in one script; the columns of a bitext are named by `code`."""

    flores: str  # FLORES-200, with its script: "ind_Latn"
    code: str  # of bitext columns: ISO 639-1 where there is one ("id"), else ISO 639-3; "zh_Hant" in another script
    name: str  # in English: "Indonesian"

    @property
    def iso3(self) -> str:
        """ISO 639-3 as FLORES-200 uses it: "ind"."""
        return self.flores.split("_")[0]

    @property
    def script(self) -> str:
        """ISO 15924 code of the script: "Latn"."""
        return self.flores.split("_")[1]

    @property
    def has_spaces(self) -> bool:
        """Whether the script separates words by spaces; lengths are counted in characters where it does not."""
        return self.script not in ("Hans", "Hant", "Hani", "Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Tibt")

    @property
    def is_right_to_left(self) -> bool:
        """Whether the script is written from right to left."""
        return self.script in ("Adlm", "Arab", "Aran", "Hebr", "Mand", "Mend", "Nkoo", "Rohg", "Samr", "Syrc", "Thaa")


# FLORES-200 code, ISO 639-1 ("-" where there is none), name.
_TABLE = """
eng_Latn en English | est_Latn et Estonian | ind_Latn id Indonesian | swh_Latn sw Swahili | tur_Latn tr Turkish |
zho_Hans zh Chinese | afr_Latn af Afrikaans | als_Latn sq Albanian | amh_Ethi am Amharic | arb_Arab ar Arabic |
asm_Beng as Assamese | azj_Latn az Azerbaijani | bak_Cyrl ba Bashkir | bel_Cyrl be Belarusian | ben_Beng bn Bengali |
bod_Tibt bo Tibetan | bos_Latn bs Bosnian | bul_Cyrl bg Bulgarian | cat_Latn ca Catalan | ces_Latn cs Czech |
cym_Latn cy Welsh | dan_Latn da Danish | deu_Latn de German | ell_Grek el Greek | epo_Latn eo Esperanto |
eus_Latn eu Basque | ewe_Latn ee Ewe | fao_Latn fo Faroese | fin_Latn fi Finnish | fra_Latn fr French |
gla_Latn gd Scottish Gaelic | gle_Latn ga Irish | glg_Latn gl Galician | guj_Gujr gu Gujarati |
hat_Latn ht Haitian Creole | hau_Latn ha Hausa | heb_Hebr he Hebrew | hin_Deva hi Hindi | hrv_Latn hr Croatian |
hun_Latn hu Hungarian | hye_Armn hy Armenian | ibo_Latn ig Igbo | isl_Latn is Icelandic | ita_Latn it Italian |
jav_Latn jv Javanese | jpn_Jpan ja Japanese | kan_Knda kn Kannada | kat_Geor ka Georgian | kaz_Cyrl kk Kazakh |
khk_Cyrl mn Mongolian | khm_Khmr km Khmer | kin_Latn rw Kinyarwanda | kir_Cyrl ky Kyrgyz | kor_Hang ko Korean |
lao_Laoo lo Lao | lin_Latn ln Lingala | lit_Latn lt Lithuanian | ltz_Latn lb Luxembourgish | lug_Latn lg Ganda |
lvs_Latn lv Latvian | mal_Mlym ml Malayalam | mar_Deva mr Marathi | mkd_Cyrl mk Macedonian | mlt_Latn mt Maltese |
mri_Latn mi Maori | mya_Mymr my Burmese | nld_Latn nl Dutch | nno_Latn nn Norwegian Nynorsk |
nob_Latn nb Norwegian Bokmal | npi_Deva ne Nepali | nya_Latn ny Chichewa | oci_Latn oc Occitan | ory_Orya or Odia |
pan_Guru pa Punjabi | pbt_Arab ps Pashto | pes_Arab fa Persian | plt_Latn mg Malagasy | pol_Latn pl Polish |
por_Latn pt Portuguese | ron_Latn ro Romanian | run_Latn rn Rundi | rus_Cyrl ru Russian | sin_Sinh si Sinhala |
slk_Latn sk Slovak | slv_Latn sl Slovenian | smo_Latn sm Samoan | sna_Latn sn Shona | snd_Arab sd Sindhi |
som_Latn so Somali | sot_Latn st Southern Sotho | spa_Latn es Spanish | srp_Cyrl sr Serbian | ssw_Latn ss Swati |
sun_Latn su Sundanese | swe_Latn sv Swedish | tam_Taml ta Tamil | tat_Cyrl tt Tatar | tel_Telu te Telugu |
tgk_Cyrl tg Tajik | tgl_Latn tl Tagalog | tha_Thai th Thai | tir_Ethi ti Tigrinya | tsn_Latn tn Tswana |
tso_Latn ts Tsonga | tuk_Latn tk Turkmen | uig_Arab ug Uyghur | ukr_Cyrl uk Ukrainian | urd_Arab ur Urdu |
uzn_Latn uz Uzbek | vie_Latn vi Vietnamese | wol_Latn wo Wolof | xho_Latn xh Xhosa | ydd_Hebr yi Yiddish |
yor_Latn yo Yoruba | zsm_Latn ms Malay | zul_Latn zu Zulu | lim_Latn li Limburgish | ace_Latn - Acehnese |
ast_Latn - Asturian | ban_Latn - Balinese | bjn_Latn - Banjar | ceb_Latn - Cebuano | ckb_Arab - Central Kurdish |
fon_Latn - Fon | fur_Latn - Friulian | ilo_Latn - Ilocano | luo_Latn - Luo | min_Latn - Minangkabau |
nso_Latn - Northern Sotho | pap_Latn - Papiamento | war_Latn - Waray | crh_Latn - Crimean Tatar |
acm_Arab - Mesopotamian Arabic | acq_Arab - Ta'izzi-Adeni Arabic | aeb_Arab - Tunisian Arabic |
ajp_Arab - South Levantine Arabic | aka_Latn ak Akan | apc_Arab - North Levantine Arabic | ars_Arab - Najdi Arabic |
ary_Arab - Moroccan Arabic | arz_Arab - Egyptian Arabic | awa_Deva - Awadhi | ayr_Latn ay Central Aymara |
azb_Arab - South Azerbaijani | bam_Latn bm Bambara | bem_Latn - Bemba | bho_Deva - Bhojpuri | bug_Latn - Buginese |
cjk_Latn - Chokwe | dik_Latn - Southwestern Dinka | dyu_Latn - Dyula | dzo_Tibt dz Dzongkha | fij_Latn fj Fijian |
fuv_Latn ff Nigerian Fulfulde | gaz_Latn om Oromo | grn_Latn gn Guarani | hne_Deva - Chhattisgarhi |
kab_Latn - Kabyle | kac_Latn - Jingpho | kam_Latn - Kamba | kas_Arab ks Kashmiri | kbp_Latn - Kabiye |
kea_Latn - Kabuverdianu | kik_Latn ki Kikuyu | kmb_Latn - Kimbundu | kmr_Latn ku Northern Kurdish |
knc_Latn kr Central Kanuri | kon_Latn kg Kikongo | lij_Latn - Ligurian | lmo_Latn - Lombard | ltg_Latn - Latgalian |
lua_Latn - Luba-Kasai | lus_Latn - Mizo | mag_Deva - Magahi | mai_Deva - Maithili | mni_Beng - Meitei |
mos_Latn - Mossi | nus_Latn - Nuer | pag_Latn - Pangasinan | prs_Arab - Dari | quy_Latn qu Ayacucho Quechua |
sag_Latn sg Sango | san_Deva sa Sanskrit | sat_Olck - Santali | scn_Latn - Sicilian | shn_Mymr - Shan |
srd_Latn sc Sardinian | szl_Latn - Silesian | taq_Latn - Tamasheq | tpi_Latn - Tok Pisin | tum_Latn - Tumbuka |
twi_Latn tw Twi | tzm_Tfng - Central Atlas Tamazight | umb_Latn - Umbundu | vec_Latn - Venetian |
yue_Hant - Cantonese
"""

LANGUAGES = tuple(
    Language(flores, flores[:3] if iso1 == "-" else iso1, name)
    for flores, iso1, name in (row.split(maxsplit=2) for row in re.split(r"\s*\|\s*", _TABLE.strip()))
)

# Further codes in use for the same languages: macrolanguages of ISO 639-3, individual languages, old codes.
ALIASES = {
    "swa": "sw", "ekk": "et", "cmn": "zh", "in": "id", "iw": "he", "sqi": "sq", "ara": "ar", "aze": "az", "lav": "lv",
    "mlg": "mg", "mon": "mn", "msa": "ms", "nep": "ne", "no": "nb", "nor": "nb", "ori": "or", "pus": "ps", "fas": "fa",
    "uzb": "uz", "yid": "yi", "que": "qu", "aym": "ay", "kur": "ku", "ful": "ff", "orm": "om", "kau": "kr",
    "din": "dik", "fil": "tl",
}  # fmt: skip

# Regions that write the language in another script than its main one (CLDR, "likely subtags").
_SCRIPTS = {"zh_tw": "Hant", "zh_hk": "Hant", "zh_mo": "Hant", "pa_pk": "Arab", "az_ir": "Arab", "kk_cn": "Arab",
            "uz_af": "Arab", "mn_cn": "Mong"}  # fmt: skip

# Names that columns, folders and corpora give the two kinds of Chinese, beside those that every language has.
_CHINESE = {
    "zh": ["zh_Hans", "zh_CN", "zh-CN", "zh_Hans_CN", "zho_cn", "zh_cn"],
    "zh_Hant": ["zh-Hant", "zh_TW", "zh-TW", "zh_tw", "zh_HK", "zh-HK", "zh_Hant_TW", "zh_Hant_HK", "zht"],
}

_BY_CODE = {code: row for row in LANGUAGES for code in (row.code, row.iso3)}
_BY_CODE |= {alias: _BY_CODE[code] for alias, code in ALIASES.items()}
_KNOWN_SCRIPTS = {row.script for row in LANGUAGES} | set(_SCRIPTS.values())


def language(code: str) -> Language:
    """
    A language from any of its codes (`id`, `ind`, `ind_Latn`, `zh-CN`; case does not matter).

    A script other than the language's main one makes a language of its own (`sr_Latn`), and so does a region that
    writes it (`zh_TW` is `zh_Hant`); any other region is left out (`pt_BR` is `pt`).

    Raises:
        `ValueError`: where the code is unknown, with near ones.
    """
    if isinstance(code, bool):
        raise ValueError(f"language code {code!r}: YAML reads no, on and yes without quotes so; quote it: 'no'")
    row = find_language(str(code))
    if row is None:
        raise ValueError(f"unknown language code {code!r}; {_suggestions(str(code))}")
    return row


def named(code: str, name: str | None = None) -> Language:
    """[`language`], with a name of one's own where one is given."""
    return language(code)._replace(name=name) if name else language(code)


@functools.cache
def find_language(code: str) -> Language | None:
    """`language`, but None for an unknown code."""
    tag = code.strip().lower().replace("-", "_")
    parts = re.fullmatch(r"([a-z]{2,3})(?:_([a-z]{4}))?(?:_([a-z]{2}|\d{3}))?", tag)
    row = _BY_CODE.get(parts[1]) if parts else None
    if row is None:
        return _by_library(tag)
    script = (parts[2] or "").title() or _SCRIPTS.get(f"{row.code}_{parts[3]}", row.script)
    if script == row.script:
        return row
    if script not in _KNOWN_SCRIPTS and _by_library(f"qaa_{script}") is None:
        return None
    return Language(f"{row.iso3}_{script}", f"{row.code}_{script}", f"{row.name} ({script})")


def _by_library(tag: str) -> Language | None:
    """Any language that the registry of BCP 47 has, or leaves to private use (`qaa`); main scripts by CLDR."""
    try:
        import langcodes
    except ImportError:  # a requirement, but nothing of the table depends on it
        return None
    try:
        found = langcodes.Language.get(tag)
    except langcodes.LanguageTagError:
        return None
    base = found.language
    if base in (None, "und", "mul", "mis", "zxx") or not found.is_valid():
        return None
    if base in _BY_CODE:  # asked by another code than those above, such as "ger"
        return find_language("_".join(filter(None, (base, found.script, found.territory))))
    try:
        iso3 = found.to_alpha3()
    except LookupError:
        iso3 = base
    main, script = (one.maximize().script or "Latn" for one in (langcodes.Language.make(base), found))
    name = langcodes.Language.make(base).language_name()
    name = base if name.startswith("Unknown language") else name
    if script == main:
        return Language(f"{iso3}_{script}", base, name)
    return Language(f"{iso3}_{script}", f"{base}_{script}", f"{name} ({script})")


def codes_of(code: str) -> list[str]:
    """Every name a column, a folder or a file may carry for this language, most specific first."""
    row = language(code)
    aliases = [alias for alias, iso in ALIASES.items() if iso == row.code]
    in_main_script = "_" not in row.code
    iso3 = [row.iso3] if in_main_script else []
    script = [f"{row.code}_{row.script}"] if in_main_script else []
    codes = [str(code), row.code, row.flores, *iso3, *script, *_CHINESE.get(row.code, []), *aliases]
    return list(dict.fromkeys(codes))


def in_language(names: Iterable, code: str) -> list:
    """Those of some names, of columns or of files, that are codes of this language, in any form (`pt_BR` for `pt`)."""
    row = find_language(str(code))
    return [name for name in names if row and find_language(str(name)) == row]


def parts_of(name) -> list:
    """What the name of a language (`id`, `pt-BR`) or of a pair of them (`id-sw`) is of, one code or two."""
    if isinstance(name, bool):  # YAML reads Norwegian as false
        return [name]
    text = str(name)
    is_one = re.fullmatch(r"[a-z]{2,3}-([A-Z]{2}|[A-Z][a-z]{3}|[0-9]{3})", text) and find_language(text)
    return [text] if is_one else text.split("-")


# What files and columns are called that are codes of languages as well (Citak, Sardinian, Domung and others).
NO_LANGUAGES = frozenset(
    "txt tsv csv xml raw src tgt trg ref dev low bpe out new old url uri key num idx doc len tag set sim".split()
)


def other_language(names: list, source: str, where: str) -> str:
    """
    The code of the one language beside `source` among some names, of columns or of files, whatever else these are.

    Raises:
        `ValueError`: if there is none, or more than one.
    """
    may_be = [str(name) for name in names if str(name).lower() not in NO_LANGUAGES]
    known = {name: row.code for name in may_be if (row := find_language(name)) and row != language(source)}
    in_table = {code for code in known.values() if code.partition("_")[0] in _BY_CODE}
    # A short name, such as "url", may be the code of some small language: not where there are other columns.
    found = in_table or (set(known.values()) if len(names) == 2 else set())
    if [name.lower() for name, code in known.items() if code in found] == ["id"]:
        found = set(known.values())  # which numbers the rows where another column may be the language
    if len(found) != 1:
        what = f"is in {', '.join(sorted(found))}" if found else f"names none ({', '.join(map(str, names))})"
        raise ValueError(
            f"`target_language` is not set and cannot be told: beside {source!r}, {where} {what}. Set it."
        )
    return found.pop()


def _suggestions(code: str) -> str:
    names = {row.name.lower(): row.code for row in LANGUAGES}
    base = code.lower().replace("-", "_").partition("_")[0]
    near = [names[name] for name in difflib.get_close_matches(code.lower(), names, n=2, cutoff=0.7)]
    near = near or ([base] if base in _BY_CODE else difflib.get_close_matches(base, _BY_CODE, n=3, cutoff=0.75))
    known = f"did you mean {' or '.join(map(repr, dict.fromkeys(near)))}? " if near else ""
    return (
        f"{known}Give an ISO 639-1, ISO 639-3 or FLORES-200 code, such as 'id', 'ind' or 'ind_Latn', or any other "
        "code of BCP 47; a language that has none takes one for private use (qaa to qtz) and a name of your own"
    )
