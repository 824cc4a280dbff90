"""Further artists, for training alone: which things they drew, under which names, and how many belong here.

Icon sets draw a thing in one colour; scenes dye them, so that they teach its shape and nothing false about its colour.
Every drawing named here was looked at on a contact sheet.
"""

from __future__ import annotations

import re

from ming_omni.data import packages

ICONS = {
    "game-icons": packages.GAME_ICONS,
    "mdi": packages.MATERIAL_DESIGN,
    "phosphor": packages.PHOSPHOR,
    "tabler": packages.TABLER,
    "font-awesome": packages.FONT_AWESOME,
    "hugeicons": packages.HUGEICONS,
    "mingcute": packages.MINGCUTE,
    "boxicons": packages.BOXICONS,
    "line-awesome": packages.LINE_AWESOME,
    "temaki": packages.TEMAKI,
    "icon-park": packages.ICON_PARK,
}
"""Style -> its package, which knows things by plain names."""
EMOJI = {"noto-v1": packages.NOTO_V1, "fluent-lines": packages.FLUENT_LINES}
"""Named as the emoji sets are."""
DYED_STYLES = (*ICONS, "fluent-lines", "symbola")
"""Of one colour, or of one and a dark line: they never stand in a scene undyed."""
DYED_SHARE = 0.15
"""How often a thing that is also there in its own colours is drawn dyed."""
MOST_CLIPART, MOST_SCRATCH = 7, 4
MORE_STYLES = (
    *EMOJI,
    *ICONS,
    "symbola",
    *(f"clipart-{n}" for n in range(2, MOST_CLIPART + 1)),
    *(f"scratch-{n}" for n in range(1, MOST_SCRATCH + 1)),
)
"""The numbered ones are several drawings of one thing in one package."""
RELATIVES = {"noto-v1": "noto", "fluent-lines": "fluent"}
"""Redrawn after an older drawing: what may not be learned from one may not be learned from the other."""


def unit(concept: str, style: str) -> str:
    """What a drawing's side hangs on; relatives and numbered drawings of a thing keep together."""
    return f"{concept}/{RELATIVES.get(style, re.sub(r'-[0-9]$', '', style))}"


CALLED = {
    "airplane": "airplane plane", "alarm clock": "alarm-clock alarm", "axe": "axe fire-axe",
    "backpack": "backpack bag-personal", "badminton": "badminton shuttlecock", "baseball": "baseball ball-baseball",
    "basketball": "basketball ball-basketball", "bathtub": "bathtub bath tub", "bear": "bear bear-head bear-face",
    "bed": "bed single-bed", "beer mug": "beer-mug beer", "bicycle": "bicycle bike",
    "birthday cake": "birthday-cake cake", "boat": "canoe kayak", "books": "books book-pile",
    "bowling ball": "bowling-ball bowling", "boxing glove": "boxing-glove boxing", "briefcase": "briefcase work",
    "bubble tea": "bubble-tea boba", "cake": "cake-slice shortcake piece-of-cake", "candy": "candy wrapped-sweet",
    "cap": "cap baseball-cap billed-cap", "cheese": "cheese cheese-wedge", "cherries": "cherries cherry",
    "chicken leg": "chicken-leg drumstick food-drumstick", "chocolate bar": "chocolate-bar chocolate",
    "cocktail": "cocktail martini glass-cocktail", "coin": "coin coins",
    "computer": "desktop computer desktop-computer", "computer mouse": "computer-mouse mouse",
    "crocodile": "crocodile croc-jaws", "curling stone": "curling-stone curling", "deer": "deer stag",
    "dog": "dog sitting-dog", "doughnut": "doughnut donut", "electric plug": "electric-plug plug",
    "envelope": "envelope mail email", "fire truck": "fire-truck firetruck", "flashlight": "flashlight torch",
    "fox": "fox fox-head", "french fries": "french-fries fries", "fried egg": "fried-egg egg-fried",
    "fuel pump": "fuel-pump gas-pump gas-station petrol-pump", "gear": "gear cog settings",
    "gem": "gem gemstone diamond", "gift": "gift present", "glasses": "glasses eyeglasses spectacles",
    "gloves": "gloves glove mitten", "goggles": "goggles safety-goggles",
    "graduation cap": "graduation-cap mortarboard graduate-cap", "grapes": "grapes grape",
    "guitar": "guitar guitar-acoustic", "hamburger": "hamburger burger", "handbag": "handbag purse hand-bag",
    "headphones": "headphones headphone", "high heel": "high-heel shoe-heel", "hiking boot": "hiking-boot boot boots",
    "hippopotamus": "hippopotamus hippo", "hot dog": "hot-dog hotdog", "hot pepper": "hot-pepper chili",
    "house": "house home", "ice cream": "ice-cream icecream", "jeans": "jeans trousers pants",
    "kick scooter": "kick-scooter scooter", "kitchen knife": "kitchen-knife knife chefs-knife",
    "lifebuoy": "lifebuoy life-ring life-buoy", "light bulb": "light-bulb lightbulb bulb",
    "lotion bottle": "lotion-bottle lotion", "motorcycle": "motorcycle motorbike", "mouse": "",
    "necktie": "necktie tie", "newspaper": "newspaper news", "paintbrush": "paintbrush paint-brush brush",
    "palm tree": "palm-tree tree-palm", "paperclip": "paperclip paper-clip", "pea pod": "pea-pod peas",
    "peanuts": "peanuts peanut", "pepper": "pepper bell-pepper",
    "phone": "smartphone cellphone mobile device-mobile smart-phone-01", "piano": "piano piano-keys",
    "pickup truck": "pickup-truck truck-pickup", "pill": "pill capsule", "pine tree": "pine-tree tree-evergreen pine",
    "ping pong": "ping-pong table-tennis", "pizza": "pizza pizza-slice full-pizza",
    "pumpkin": "pumpkin jack-o-lantern", "pushpin": "pushpin push-pin thumbtack",
    "puzzle piece": "puzzle-piece puzzle", "ram": "", "rhinoceros": "rhinoceros rhino", "rice": "rice bowl-rice",
    "rice ball": "rice-ball onigiri", "running shoe": "running-shoe sneaker shoe-sneaker",
    "sailboat": "sailboat sail-boat", "saw": "saw hand-saw", "scissors": "scissors content-cut scissor",
    "sewing needle": "sewing-needle needle", "shell": "shell spiral-shell", "shirt": "shirt t-shirt tshirt",
    "shopping bags": "shopping-bags shopping-bag", "shopping cart": "shopping-cart cart", "shrimp": "shrimp prawn",
    "sled": "sled sleigh", "socks": "socks sock", "steam train": "steam-locomotive", "television": "television tv",
    "tennis ball": "tennis-ball tennis ball-tennis", "test tube": "test-tube vial",
    "trash can": "trash-can trash wastebasket", "tree": "oak tree", "ufo": "ufo flying-saucer",
    "watch": "watch wrist-watch", "watermelon": "watermelon watermelon-slice",
    "wine glass": "wine-glass glass-wine wine", "wolf": "wolf wolf-head", "wrench": "wrench spanner",
}  # fmt: skip
"""A thing -> its names among icons, the first that is there; others are called as here."""
WRONG = {
    "icon-park": (
        "anchor, bread, chicken, egg, fried egg, glasses, handbag, hippopotamus, honey, keyboard, kitchen knife, "
        "palm tree, pie, ring, sewing needle, telescope, trumpet, turkey"
    ),
    "game-icons": "butterfly, computer, computer mouse, crab, eggplant, gloves, olive, toothbrush, volcano",
    "mdi": (
        "apple, bathtub, bee, chocolate bar, dagger, gem, gloves, honey, satellite, sewing needle, shower, skis, "
        "telephone, wheelchair"
    ),
    "phosphor": "gem, pen, pepper, plant, wheelchair",
    "tabler": "bicycle, bowling ball, cap, light bulb, pepper, pig, teapot",
    "font-awesome": "broom, chains, tree, wheelchair",
    "hugeicons": (
        "abacus, cake, clipboard, gem, jar, keyboard, pen, pepper, satellite, skis, snail, sunglasses, test tube"
    ),
    "mingcute": (
        "chicken, deer, fish, gem, house, kick scooter, mirror, parachute, pen, pig, rose, shield, skateboard, "
        "sunflower, tree, wine glass"
    ),
    "boxicons": "cherries, coffee, honey, kick scooter, pen, sandwich, tree",
    "line-awesome": "apple, pen, tree, wheelchair, yarn",
    "temaki": (
        "boat, bowling ball, chocolate bar, coffee, gem, lipstick, plant, telephone, tennis ball, wheelchair"
    ),
}  # fmt: skip
"""Icons of that name show something else, as a brand or a piggy bank."""
CLIPART = {
    "airplane": "airplane_nicu_buculei_01 plane_silhouet_mo_01", "anchor": "anchor anchor_juliane_krug_01",
    "apple": "an_apple_01 another_apple_01 apple apple_bw apple_martin_schmidt-li_01r apple_bitten_dan_gerhard_01",
    "bacon": "bacon_ganson", "balloon": "balloon-orange-aj", "banana": "bananas_nicu_buculei_01",
    "baseball": "baseball_anthony_liekens_01 baseball_bw_ganson", "bat": "contour_bat",
    "battery": "battery_01 battery_jean-victor_bali_01", "beaver": "contour_beaver",
    "bee": "bee1_mimooh_01 bee3_mimooh_01", "beer mug": "beer beer1", "bicycle": "bicycle_01 bike_tobias_jakobs_",
    "bird": "bird_of_peace_mauro_oliv_01", "birthday cake": "cake_etienne_bersac_r flat_cake_jean-victor_ba_01",
    "books": "books-aj.svg_aj_ashton_01 stack_of_books_01 stack_of_books_taller_ga_", "bread": "bread_01",
    "bus": "bus1_jarno_vasamaa_01 bus2_jarno_vasamaa_01 bus2_bw_jarno_vasamaa_01",
    "butterfly": "butterfly_jonvdveen_01 farfalla_butterfly_fra1", "camel": "contour_camel",
    "camera": "digital-camera_aj_ashton_01 digital_camera_nicu_bucu_01", "candy": "candy_02",
    "cap": "baseball_cap_ganson baseball_cap_bw_ganson",
    "car": "car_jamin_ellis_ old_car_lumen_design_st_r skoda_car_alejandro_teja_ car",
    "cat": (
        "cartoon_cat_gerald_g._01 gatto_cat_architetto_fra_01 gatto_cat_architetto_fra_03 "
        "gatto_cat_architetto_fra_04"
    ),
    "chains": "gold_chain_of_round_lin_01", "cherries": "cherry_jonathan_dietrich_01", "chicken": "hen_01",
    "chipmunk": "contour_chipmunk", "christmas tree": "christmas_tree_01",
    "cocktail": "cocktail_daniel_steele_r martini_glass_k_yager_01", "coffee": "coffee_ganson",
    "computer": "green_computer_merzok_01 computer1", "computer mouse": "mouse2 mouse_scroll_fco._andrad_01",
    "corn": "corn_cob", "croissant": "croissant_gerald_g._01", "deer": "deer_matt_todd_01",
    "dog": (
        "dog_01_drawn_with_strai_01 dog_03_drawn_with_strai_01 dog_04_drawn_with_strai_01 "
        "dog_05_drawn_with_strai_01 bored_dog_01 dog_head_nicu_buculei_02"
    ),
    "dolphin": "dolphin dolphin_enrique_meza_c_01 dolphin_enrique_meza_c_02",
    "duck": "duck_yellow_kurt_cagle_ rubber_duck1_ganson", "eagle": "eagle_01",
    "elephant": "contour_elephant elephant_01", "envelope": "bb_mail envelope_01 mail2",
    "fire truck": "fire_engine_mimooh_01", "fish": "brown_fish_01", "flute": "flute_ganson", "fox": "contour_fox",
    "french fries": "french_fries_juliane_kr_r fries_ganson", "fried egg": "fried_eggs",
    "frog": "red-eye_frog_mirko_maisc_01", "gear": "gear cog_01", "gift": "gift03 gift05",
    "giraffe": "contour_giraffe", "gloves": "mitten_nathan_eady_01", "grapes": "grape_01 grapes_simple",
    "guitar": "guitar_jarno_vasamaa1 guitar_jarno_vasamaa2 guitar_profile_philippe__01",
    "hamburger": "chicken_burger burger_http_www.treebui_r",
    "hammer": "blacksmith_hammer_ganson construction_hammer_jon__01 hammer_peterm1", "hamster": "contour_hamster",
    "harp": "harp2_ganson harp_mo_01", "hot dog": "hot_dog_juliane_krug_r",
    "hot pepper": "cayenne_pepper_1_simple_01 peperoncino_pepper_fra_", "house": "home14 home3",
    "ice cream": "cone_soft_chocolate", "juice box": "apple_juice_box orange_juice_box",
    "kangaroo": "contour_kangaroo", "key": "key_juliane_krug_01", "keyboard": "keyboard_01", "kitchen knife": "knife",
    "ladybug": "ladybug_02", "laptop": "etiquette_laptop_01", "lemon": "lemon_simple lemon_whole_ganson",
    "lifebuoy": "lifebelt_juliane_krug_01",
    "light bulb": "lightbulb_brightlit_benj_ bulb lightbulb_jon_phillips_01 lightbulb_lit_benji_park_",
    "lizard": "az-lizard_benji_park_01", "lollipop": "candy_20 candy_30",
    "monkey": "angry_monkey_benji_park_01 monkey_head_nicu_buculei_01 happy_monkey_benji_park_01",
    "mushroom": "mushroom_benji_park_", "newspaper": "newspaper_aubanel_monnie_01", "orangutan": "contour_orangutan",
    "owl": "owl_on_branch_ganson", "paintbrush": "paint_brush_costea_bogda_01 paintbrush",
    "palette": "palette_juliane_krug_01", "palm tree": "island_palm_and_the_sun_01 palmtree_b_r_kessels_",
    "pancakes": "pancake", "pear": "green_pear_01 pear_01 pear_simple", "pen": "ballpoint_pen_jonathan_d_01",
    "pencil": "pencil_benji_park_01 pencil_jonathan_dietrich_01",
    "penguin": "emperor_penguin_ralf_ste_01 new_penguin_charles_mcco_01",
    "phone": "yahoo_mobile cellular_phone_shandy_br_ mobile", "pig": "a_simple_pig_01",
    "pine tree": "simple_evergreen_with_highlights_01", "ping pong": "table_tennis_omar_abo-na_01",
    "pizza": "pizza_cheese pizza_pepperoni pizza_slice_fco._andrade_01", "potato": "potato_nicu_buculei_",
    "puzzle piece": "jigsaw_blue_01 jigsaw_blue_03", "race car": "formula_one_car_gerald_g_01",
    "ram": "dall_sheep_ram_ganson", "rhinoceros": "rhinoceros_architetto_fr_01",
    "running shoe": "tennis_shoe_jarno_vasama_ tennis_shoes_jarno_vasam_", "safety pin": "safety_pin_timothy_whit_r",
    "sailboat": "boat_jarno_vasamaa_", "sandwich": "sandwich_one_jean-victor_01 submarine_sandwich_01",
    "satellite": "satellite_zazou", "saxophone": "saxophone_jarno_vasamaa_", "scissors": "scissors_02",
    "scorpion": "scorpion-md-v0.1", "shield": "shield_matt_todd_02", "shirt": "t-shirt_01 t-shirt_02",
    "sled": "sledge_01", "steam train": "kiddy_train_orlando_kara_", "strawberry": "strawberry_01 strawberry_simple",
    "sunglasses": "sunglasses_01",
    "teddy bear": "simple_teddy_bear_gerald_01 stylized_teddy_bear_gera_01 simple_teddy_bear_with__01",
    "telephone": "classic_phone_zazou red_telephone_mimooh_01", "television": "television_alexander_d.__01",
    "tiger": "color_tiger_susan_park_01 b_w_tiger_susan_park_01 tiger_graig_ryan_smith_-_01",
    "toothbrush": "toothbrush_and_paste_ganson", "trash can": "gnome-fs-trash-empty gnome-fs-trash-full",
    "tree": "cartoon_tree_01", "truck": "small_truck_steffen_gluc_01 truck_jarno_vasamaa_ old_truck_indana_model__01",
    "trumpet": "trumpet_b_flat_colour_ganso trumpet_pocket_colour_ganso", "tulip": "tulips_ganson",
    "umbrella": "canada_umbrella_ganson", "watermelon": "watermelon_simple", "wine glass": "wine_glass_christian_h._",
    "wolf": "simple_stylized_wolf_he_01 stylized_wolf_head_geral_01",
}  # fmt: skip
"""Further files of Open Clip Art, without their endings."""
SCRATCH = {
    "airplane": "airplane.gif airplane1.png", "banana": "bananas1.png", "baseball": "baseball1.png",
    "basketball": "basketball.png", "bat": "bat1-a.png bat2-a.png", "bee": "bee1.gif", "bicycle": "bike.gif",
    "bird": "bird-flying.gif", "bus": "bus.gif", "butterfly": "butterfly1-a.png butterfly2.png butterfly3.png",
    "car": "car1.png car2.png car-blue.gif car-bug.gif", "cat": "cat2.gif cat3.png cat4.png", "cow": "cow1.gif",
    "crab": "crab1-a.png crab2.gif", "dog": "dog1-a.png dog2-a.png", "dragon": "dragon1-a.png dragon2.gif",
    "drum": "drum1.gif drum2.gif", "duck": "duck1.png", "elephant": "elephant1-a.png elephant.gif",
    "fish": "fish1-a.gif fish2.png fish3.png fish4.png", "fox": "fox1.png", "frog": "frog1.gif",
    "giraffe": "giraffe1-a.gif", "helicopter": "helicopter1.png", "hippopotamus": "hippo1.png",
    "horse": "horse1-a.png horse2.png", "key": "key1.png", "laptop": "laptop.png", "lion": "lion1-a.png lioness1.png",
    "lobster": "lobster1.png", "monkey": "monkey1.png", "mouse": "mouse1.png", "octopus": "octopus1-a.png",
    "palm tree": "palmtree.gif", "parrot": "parrot1-a.png parrot1-b.png", "rabbit": "rabbit1.png",
    "sailboat": "sail-boat.gif", "shark": "shark1-a.png shark1-b.png", "ship": "tug-boat.gif",
    "snowman": "snowman1.png snowman2.png", "sunglasses": "sunglassF1.png sunglassF2.png sunglassF3.png",
    "tennis ball": "tennisball.png", "umbrella": "umbrella.gif", "unicorn": "unicorn1.png", "whale": "whale1.gif",
    "zebra": "zebra1.png",
}  # fmt: skip
"""Costumes of Scratch 1.4; the first of its cats is a trademark and not among them."""
